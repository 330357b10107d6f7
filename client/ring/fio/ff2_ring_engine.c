/*
 * An engine for fio that reads and writes by the user ring.
 *
 *   client/ring/fio/build.sh FIO_SOURCE LIBRARY_FOLDER   (makes ff2_ring_engine.so in the current folder)
 *   fio --ioengine=external:./ff2_ring_engine.so --directory=/mnt/ff2 ...
 *
 * FIO_SOURCE is the source of the fio that runs, after its ./configure: engines have no stable interface.
 * A job has a ring, and its buffers are the ring's region, so nothing is copied on this side.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fio.h"
#include "optgroup.h"

#include "ff2_ring.h"

struct ring_data {
    ff2_ring *ring;
    ff2_region *region;
    struct ff2_ring_completion *completions;
};

static int failed(struct thread_data *td, const char *what, int outcome)
{
    td_verror(td, -outcome, what);
    log_err("ff2_ring: %s: %s\n", what, ff2_ring_error());
    return 1;
}

static int ring_init(struct thread_data *td)
{
    struct ring_data *data = calloc(1, sizeof(*data));
    int outcome;

    if (!td->o.nr_files) {
        log_err("ff2_ring: a job needs a file on a mount\n");
        free(data);
        return 1;
    }
    outcome = ff2_ring_connect(td->files[0]->file_name, td->o.iodepth, &data->ring);
    if (outcome < 0) {
        free(data);
        return failed(td, "connect", outcome);
    }
    data->completions = calloc(td->o.iodepth, sizeof(*data->completions));
    td->io_ops_data = data;
    return 0;
}

static void ring_cleanup(struct thread_data *td)
{
    struct ring_data *data = td->io_ops_data;

    if (!data)
        return;
    ff2_ring_close(data->ring);
    free(data->completions);
    free(data);
    td->io_ops_data = NULL;
}

/* fio takes the job's buffers from here. */
static int ring_alloc(struct thread_data *td, size_t bytes)
{
    struct ring_data *data = td->io_ops_data;
    int outcome = ff2_ring_add_region(data->ring, bytes, &data->region);

    if (outcome < 0)
        return failed(td, "add a region", outcome);
    td->orig_buffer = (char *)ff2_region_base(data->region);
    return 0;
}

static void ring_free(struct thread_data *td)
{
    struct ring_data *data = td->io_ops_data;

    if (data) {
        ff2_region_free(data->region);
        data->region = NULL;
    }
    td->orig_buffer = NULL;
}

static int ring_open(struct thread_data *td, struct fio_file *f)
{
    struct ring_data *data = td->io_ops_data;
    uint32_t number;
    int outcome = generic_open_file(td, f);

    if (outcome)
        return outcome;
    outcome = ff2_ring_add_file(data->ring, f->fd, &number);
    if (outcome < 0) {
        int unused __attribute__((unused)) = generic_close_file(td, f);
        return failed(td, "add a file", outcome);
    }
    FILE_SET_ENG_DATA(f, (void *)(uintptr_t)number);
    return 0;
}

static int ring_close(struct thread_data *td, struct fio_file *f)
{
    struct ring_data *data = td->io_ops_data;

    if (data)
        ff2_ring_remove_file(data->ring, (uint32_t)(uintptr_t)FILE_ENG_DATA(f));
    FILE_SET_ENG_DATA(f, NULL);
    return generic_close_file(td, f);
}

static enum fio_q_status ring_queue(struct thread_data *td, struct io_u *io_u)
{
    struct ring_data *data = td->io_ops_data;
    struct ff2_ring_submission asked = {
        .op = io_u->ddir == DDIR_READ ? FF2_RING_READ : FF2_RING_WRITE,
        .file = (uint32_t)(uintptr_t)FILE_ENG_DATA(io_u->file),
        .region = ff2_region_number(data->region),
        .region_offset = (char *)io_u->xfer_buf - td->orig_buffer,
        .file_offset = io_u->offset,
        .length = io_u->xfer_buflen,
        .user_data = (uintptr_t)io_u,
    };
    int outcome;

    fio_ro_check(td, io_u);
    if (ddir_sync(io_u->ddir)) {
        do_io_u_sync(td, io_u);
        return FIO_Q_COMPLETED;
    }
    if (!ddir_rw(io_u->ddir)) {
        io_u->error = EOPNOTSUPP;
        return FIO_Q_COMPLETED;
    }
    outcome = ff2_ring_push(data->ring, &asked);
    if (outcome == -EAGAIN)
        return FIO_Q_BUSY;
    if (outcome < 0) {
        io_u->error = -outcome;
        return FIO_Q_COMPLETED;
    }
    return FIO_Q_QUEUED;
}

static int ring_commit(struct thread_data *td)
{
    struct ring_data *data = td->io_ops_data;

    ff2_ring_submit(data->ring);
    return 0;
}

static int ring_getevents(struct thread_data *td, unsigned int min, unsigned int max,
                          const struct timespec *t)
{
    struct ring_data *data = td->io_ops_data;
    int64_t timeout_ms = t ? t->tv_sec * 1000 + t->tv_nsec / 1000000 : -1;

    return ff2_ring_reap(data->ring, data->completions, max, min, timeout_ms);
}

static struct io_u *ring_event(struct thread_data *td, int event)
{
    struct ring_data *data = td->io_ops_data;
    const struct ff2_ring_completion *completion = &data->completions[event];
    struct io_u *io_u = (struct io_u *)(uintptr_t)completion->user_data;

    io_u->error = completion->result < 0 ? -completion->result : 0;
    io_u->resid = completion->result < 0 ? 0 : io_u->xfer_buflen - completion->result;
    return io_u;
}

/* fio looks for this name. */
struct ioengine_ops ioengine = {
    .name = "ff2_ring",
    .version = FIO_IOOPS_VERSION,
    .init = ring_init,
    .cleanup = ring_cleanup,
    .iomem_alloc = ring_alloc,
    .iomem_free = ring_free,
    .open_file = ring_open,
    .close_file = ring_close,
    .get_file_size = generic_get_file_size,
    .queue = ring_queue,
    .commit = ring_commit,
    .getevents = ring_getevents,
    .event = ring_event,
};
