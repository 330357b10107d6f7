/* Every function of the header, on a mount: ring.c FILE, a file of at least 100,000 bytes that this user
 * may read and write. Ends with 0 if all was as the header says. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ff2_ring.h"

#define CHECK(is)                                                                       \
    do {                                                                                \
        if (!(is)) {                                                                    \
            fprintf(stderr, "line %d: %s (last: %s)\n", __LINE__, #is, ff2_ring_error()); \
            exit(1);                                                                    \
        }                                                                               \
    } while (0)

static struct ff2_ring_completion one(ff2_ring *ring, struct ff2_ring_submission asked)
{
    struct ff2_ring_completion completion = {0, 0};
    asked.user_data = 4711;
    CHECK(ff2_ring_push(ring, &asked) == 0);
    CHECK(ff2_ring_reap(ring, &completion, 1, 1, 60000) == 1);
    CHECK(completion.user_data == 4711);
    return completion;
}

int main(int argc, char **argv)
{
    enum { BYTES = 100000, PIECES = 10 };
    struct ff2_ring_completion completions[PIECES];
    struct ff2_ring_submission asked = {0};
    ff2_ring *ring = NULL;
    ff2_region *region = NULL;
    uint32_t file;
    static uint8_t expected[BYTES];
    int fd, seen = 0;

    CHECK(argc == 2);
    CHECK(ff2_ring_version() == FF2_RING_VERSION);
    CHECK(ff2_ring_connect("/", 16, &ring) == -EOPNOTSUPP);
    CHECK(strstr(ff2_ring_error(), "use a path on the mount"));
    CHECK(ff2_ring_connect(argv[1], 0, &ring) == -EINVAL);
    CHECK(ff2_ring_connect(argv[1], 16, &ring) == 0);
    CHECK(ff2_ring_add_region(ring, 0, &region) == -EINVAL);
    CHECK(ff2_ring_add_region(ring, BYTES, &region) == 0);
    CHECK(ff2_ring_add_file(ring, -1, &file) == -EINVAL);
    fd = open("/dev/null", O_RDONLY);
    CHECK(ff2_ring_add_file(ring, fd, &file) == -EXDEV);
    close(fd);
    fd = open(argv[1], O_RDWR);
    CHECK(fd >= 0);
    CHECK(ff2_ring_add_file(ring, fd, &file) == 0);
    CHECK(pread(fd, expected, BYTES, 0) == BYTES);

    asked.op = FF2_RING_READ;
    asked.file = file;
    asked.region = ff2_region_number(region);
    asked.length = BYTES / PIECES;
    for (int piece = 0; piece < PIECES; piece++) {
        asked.priority = piece % 2 ? FF2_RING_LOW : FF2_RING_HIGH;
        asked.region_offset = asked.file_offset = piece * asked.length;
        asked.user_data = piece;
        CHECK(ff2_ring_push(ring, &asked) == 0);
    }
    ff2_ring_submit(ring);
    while (seen < PIECES) {
        int count;
        if (ff2_ring_arm(ring)) {
            struct pollfd bell = {ff2_ring_bell(ring), POLLIN, 0};
            CHECK(poll(&bell, 1, 60000) == 1);
        }
        count = ff2_ring_reap(ring, completions, PIECES, 1, 0);
        CHECK(count >= 1);
        for (int place = 0; place < count; place++)
            CHECK(completions[place].result == BYTES / PIECES);
        seen += count;
    }
    CHECK(memcmp(ff2_region_base(region), expected, BYTES) == 0);

    memset(ff2_region_base(region), 'w', 1000);
    asked.op = FF2_RING_WRITE;
    asked.region_offset = 0;
    asked.file_offset = 500;
    asked.length = 1000;
    CHECK(one(ring, asked).result == 1000);
    asked.op = FF2_RING_FSYNC;
    CHECK(one(ring, asked).result == 0);
    memset(expected + 500, 'w', 1000);
    CHECK(pread(fd, completions, 1, 499) == 1 && pread(fd, ff2_region_base(region), BYTES, 0) == BYTES);
    CHECK(memcmp(ff2_region_base(region), expected, BYTES) == 0);

    asked.op = 9;
    CHECK(ff2_ring_push(ring, &asked) == -EINVAL);
    asked.op = FF2_RING_READ;
    asked.priority = 2;
    CHECK(ff2_ring_push(ring, &asked) == -EINVAL);
    asked.priority = FF2_RING_HIGH;
    asked.length = FF2_RING_OPERATION_BYTES_MAX + 1;
    CHECK(ff2_ring_push(ring, &asked) == -EINVAL);
    asked.length = BYTES;
    asked.region_offset = 1;
    CHECK(one(ring, asked).result == -EFAULT);
    for (int place = 0; place < 16; place++)
        CHECK(ff2_ring_push(ring, &asked) == 0);
    CHECK(ff2_ring_push(ring, &asked) == -EAGAIN);
    for (seen = 0; seen < 16;)
        seen += ff2_ring_reap(ring, completions, PIECES, 1, -1);
    CHECK(seen == 16 && ff2_ring_reap(ring, completions, PIECES, 1, -1) == 0);

    CHECK(ff2_ring_remove_file(ring, file) == 0);
    CHECK(ff2_ring_remove_file(ring, file) == -ENOENT);
    asked.region_offset = 0;
    CHECK(one(ring, asked).result == -EBADF);
    CHECK(ff2_ring_remove_region(ring, region) == 0);
    ff2_ring_close(ring);
    ff2_ring_close(NULL);
    ff2_region_base(region)[0] = 1;
    ff2_region_free(region);
    ff2_region_free(NULL);
    close(fd);
    return 0;
}
