/*
 * The user ring of ff2: reads and writes of files on a mount in batches, without a system call for
 * each and without the kernel's page cache. Link with -lff2_ring.
 *
 * Functions return 0 (or a count, where they say so) or a negative errno; ff2_ring_error() then has
 * a sentence. A ring belongs to one thread at a time, and to the process that made it; a program may
 * have several.
 */
#ifndef FF2_RING_H
#define FF2_RING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FF2_RING_VERSION 1
/* Bytes of one operation, at most. */
#define FF2_RING_OPERATION_BYTES_MAX (16u << 20)

enum ff2_ring_op { FF2_RING_READ = 1, FF2_RING_WRITE = 2, FF2_RING_FSYNC = 3 };

/* High goes first; low is not held up for ever. */
enum ff2_ring_priority { FF2_RING_HIGH = 0, FF2_RING_LOW = 1 };

typedef struct ff2_ring ff2_ring;
typedef struct ff2_region ff2_region;

/* Reserved fields are 0. FSYNC needs op, priority, file and user_data only. */
struct ff2_ring_submission {
    uint8_t op;
    uint8_t priority;
    uint16_t reserved;
    uint32_t file;          /* of ff2_ring_add_file */
    uint32_t region;        /* of ff2_region_number */
    uint32_t reserved_2;
    uint64_t region_offset; /* bytes */
    uint64_t file_offset;   /* bytes; not looked at when writing with O_APPEND */
    uint64_t length;        /* bytes */
    uint64_t user_data;     /* comes back with the completion */
};

struct ff2_ring_completion {
    uint64_t user_data;
    int64_t result; /* bytes that moved, or a negative errno */
};

/* FF2_RING_VERSION of the library. */
uint32_t ff2_ring_version(void);

/* What this thread's last failure was; valid until its next one. */
const char *ff2_ring_error(void);

/* Connects to the process that serves the mount on which path lies. entries: operations that may be
 * pushed and not reaped, 1 to 4096, rounded up to a power of two. */
int ff2_ring_connect(const char *path, uint32_t entries, ff2_ring **ring);

/* Closes a ring (or nothing, if it is null). Reads under way are given up, writes go on to their end.
 * Regions stay until they are freed. */
void ff2_ring_close(ff2_ring *ring);

/* New zeroed memory for operations. */
int ff2_ring_add_region(ff2_ring *ring, size_t bytes, ff2_region **region);

/* The mount forgets a region; its memory stays until ff2_region_free. */
int ff2_ring_remove_region(ff2_ring *ring, const ff2_region *region);

/* The first byte, page aligned, and the number for submissions. */
uint8_t *ff2_region_base(const ff2_region *region);
uint32_t ff2_region_number(const ff2_region *region);

/* Gives the memory back (or nothing, if it is null). */
void ff2_region_free(ff2_region *region);

/* Registers an open file of the mount. The ring may do what the descriptor allows, which may be closed
 * afterwards. */
int ff2_ring_add_file(ff2_ring *ring, int fd, uint32_t *file);
int ff2_ring_remove_file(ff2_ring *ring, uint32_t file);

/* Puts an operation into the next batch. -EAGAIN: the ring is full, reap first. */
int ff2_ring_push(ff2_ring *ring, const struct ff2_ring_submission *submission);

/* Starts what was pushed. */
void ff2_ring_submit(ff2_ring *ring);

/* Submits what was pushed, waits for at least min completions (as many as are outstanding, if that is
 * less), stores at most max and returns how many. Fewer than min only after timeout_ms; a negative
 * timeout waits for ever. -EPIPE: the mount is gone, connect again. */
int ff2_ring_reap(ff2_ring *ring, struct ff2_ring_completion *completions, uint32_t max, uint32_t min,
                  int64_t timeout_ms);

/* For poll(2) and the like: arm (0: there is a completion already, reap first), wait until the bell is
 * readable, then reap with min 1 and a timeout of 0. */
int ff2_ring_bell(const ff2_ring *ring);
int ff2_ring_arm(ff2_ring *ring);

#ifdef __cplusplus
}
#endif

#endif
