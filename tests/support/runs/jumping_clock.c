/* A wall clock that jumps, for all processes that LD_PRELOAD this library: their CLOCK_REALTIME is the machine's plus the
 * nanoseconds that the file $HONE_TEST_CLOCK holds at that moment. Other clocks are untouched, as when an administrator
 * or a time server sets the clock of a node. Waits that end at a time of the wall clock see the jump as Linux does: the
 * wait ends earlier or later.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define LOOK (SECOND / 20) /* A wait looks so often whether the clock has jumped. */
#define OLDEST 1000000000LL /* Seconds; an earlier time is of a clock that starts with the machine. */

static volatile int64_t *jumped;
static const int64_t none = 0;

static int64_t offset(void) {
    if (!jumped) {
        const char *name = getenv("HONE_TEST_CLOCK");
        int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        jumped = page == MAP_FAILED ? (volatile int64_t *)&none : page;
    }
    return *jumped;
}

static int64_t nanoseconds(const struct timespec *t) { return t->tv_sec * SECOND + t->tv_nsec; }

static struct timespec moment(int64_t ns) { return (struct timespec){ns / SECOND, ns % SECOND}; }

static int is_wall(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (is_wall(clock)) {
        if (syscall(SYS_clock_gettime, clock, t)) return -1;
        *t = moment(nanoseconds(t) + offset());
        return 0;
    }
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, t);
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *t, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, t) == 0 ? base : 0;
}

/* The next look of a wait until `end`, by the machine's clock; *over: `end` has come. */
static struct timespec next_look(const struct timespec *end, int *over) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t left = nanoseconds(end) - nanoseconds(&now), machine = nanoseconds(&now) - offset();
    *over = left <= 0;
    return moment(machine + (left < 0 ? 0 : left < LOOK ? left : LOOK));
}

static void *real_of(const char *name) {
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2"); /* else x86 has an older one with another structure */
    return found ? found : dlsym(RTLD_NEXT, name);
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict end) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    int over;
    if (!real) real = real_of("pthread_cond_timedwait");
    if (end->tv_sec < OLDEST) return real(c, m, end);
    struct timespec look = next_look(end, &over);
    int code = real(c, m, &look);
    return code == ETIMEDOUT && !over ? 0 : code; /* as if it was woken without a reason, which POSIX allows */
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict end) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
    for (int over;;) {
        struct timespec look = next_look(end, &over);
        if (real(s, &look) == 0) return 0;
        if (errno != ETIMEDOUT || over) return -1;
    }
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict m, const struct timespec *restrict end) {
    static int (*real)(pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    for (int over;;) {
        struct timespec look = next_look(end, &over);
        int code = real(m, &look);
        if (code != ETIMEDOUT || over) return code;
    }
}
