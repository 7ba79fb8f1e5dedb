/* SPDX-License-Identifier: Apache-2.0 */
/* libfirn: a disk of a Firn daemon through shared memory. See libfirn(3).
 *
 * A channel belongs to one thread at a time. Functions return 0 (or a count), or a negative errno
 * value; firn_error() says in a sentence why the last one of this thread failed. */
#ifndef FIRN_H
#define FIRN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FIRN_API __attribute__((visibility("default")))

struct firn_channel;

/* firn_options.flags: for tests and measurements; by default the best that the server has. */
#define FIRN_PACKED 1u      /* packed rings */
#define FIRN_NO_EVENT 2u    /* without EVENT_IDX */
#define FIRN_NO_INDIRECT 4u /* without indirect descriptors */

struct firn_options {
  uint32_t size;         /* sizeof(struct firn_options) */
  uint32_t flags;        /* FIRN_... */
  uint32_t queues;       /* 0: 1 */
  uint32_t depth;        /* requests in flight, a queue; 0: 128; at most 1024 */
  uint64_t memory_bytes; /* of firn_allocate(); 0: 4 MiB */
  uint32_t spin_us;      /* how long a wait looks before it sleeps, while waits are short; 0: 50,
                            FIRN_NO_SPIN: never */
  uint32_t patience_ms;  /* how long a server may be away; 0: 10000 */
};
#define FIRN_NO_SPIN UINT32_MAX

struct firn_geometry {
  uint64_t bytes;
  uint32_t block;        /* addresses and lengths are multiples of this */
  uint32_t optimal;      /* and best of this */
  uint32_t queues_max;
  uint32_t transfer_max; /* bytes of one request */
  uint32_t effect_max;   /* bytes of one discard or zero */
  uint8_t read_only;
  uint8_t can_discard;
  uint8_t can_zero;
  uint8_t reserved[5];
};

enum firn_op { FIRN_READ = 0, FIRN_WRITE = 1, FIRN_FLUSH = 2, FIRN_DISCARD = 3, FIRN_ZERO = 4 };

struct firn_request {
  uint64_t cookie; /* comes back with the completion */
  uint64_t offset; /* on the disk */
  void *buffer;    /* of FIRN_READ and FIRN_WRITE: allocated or registered */
  uint32_t length;
  uint16_t op;     /* enum firn_op */
  uint16_t queue;
};

struct firn_completion {
  uint64_t cookie;
  int32_t result;  /* 0, or a negative errno value */
  uint16_t op;
  uint16_t queue;
};

struct firn_statistics {
  uint64_t kicks;      /* signals given to the server */
  uint64_t calls;      /* signals got from it */
  uint64_t sleeps;
  uint64_t reconnects;
};

/* Connects to the vhost-user socket of a disk. `options` may be NULL. */
FIRN_API int firn_connect(const char *socket, const struct firn_options *options,
                          struct firn_channel **channel);
/* Ends it; what is in flight has no outcome. NULL is fine. */
FIRN_API void firn_disconnect(struct firn_channel *channel);
/* As it is now; asks the server. */
FIRN_API int firn_get_geometry(struct firn_channel *channel, struct firn_geometry *geometry);

/* Memory that both sides see. It lives as long as the channel. NULL: there is no more. */
FIRN_API void *firn_allocate(struct firn_channel *channel, size_t bytes);
/* Shows memory of the caller's to the server, once: `bytes` of `fd` (a memfd, or a file on tmpfs or
 * hugetlbfs) from `offset`, mapped at `at`. At most 7 such regions. Nothing may be in flight. */
FIRN_API int firn_register(struct firn_channel *channel, int fd, uint64_t offset, void *at,
                           size_t bytes);

/* Adds a request; -EAGAIN when as many as fit are in flight. The server sees it with the next
 * firn_commit(), or firn_wait(). */
FIRN_API int firn_submit(struct firn_channel *channel, const struct firn_request *request);
FIRN_API int firn_commit(struct firn_channel *channel);
/* Takes up to `max` completions that are there; never waits. */
FIRN_API int firn_poll(struct firn_channel *channel, struct firn_completion *completions, int max);
/* Commits, then waits until at least one is there, at most `timeout_ms` (negative: for ever); 0
 * when the time is over, or nothing is in flight. When the server has died it connects again, and
 * what was in flight is done again. Where that cannot be it completes with -ECONNRESET, and so does
 * whatever is asked of the channel afterwards. */
FIRN_API int firn_wait(struct firn_channel *channel, struct firn_completion *completions, int max,
                       int timeout_ms);

/* For event loops: the descriptor (an epoll set) becomes readable when completions are there, or
 * the server is gone, after firn_arm() has returned 0; 1: something is there already. Then call
 * firn_wait() with a timeout of 0. */
FIRN_API int firn_event_fd(struct firn_channel *channel);
FIRN_API int firn_arm(struct firn_channel *channel);

FIRN_API void firn_get_statistics(const struct firn_channel *channel,
                                  struct firn_statistics *statistics);
FIRN_API const char *firn_error(void);

#ifdef __cplusplus
}
#endif
#endif
