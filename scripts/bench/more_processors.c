/* Has a program see more processors than there are, for `scripts/bench/udp --workers`: preloaded, it names
 * SEEN_PROCESSORS of them, and a thread that wants to run on one of these runs on that number modulo the processors
 * that there are. */

#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int sched_getaffinity(pid_t process, size_t size, cpu_set_t *set) {
    (void)process;
    const char *seen = getenv("SEEN_PROCESSORS");
    CPU_ZERO_S(size, set);
    for (int processor = 0; processor < (seen ? atoi(seen) : 1); processor++) {
        CPU_SET_S(processor, size, set);
    }
    return 0;
}

int sched_setaffinity(pid_t process, size_t size, const cpu_set_t *set) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    cpu_set_t real;
    CPU_ZERO(&real);
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (CPU_ISSET_S(processor, size, set)) {
            CPU_SET(processor % processors, &real);
        }
    }
    return (int)syscall(SYS_sched_setaffinity, process, sizeof(real), &real);
}
