/* The wall clock as a program sees it that is loaded with this (LD_PRELOAD): moved by the seconds in the file $WALL_OFFSET, which
   may change while it runs. The boot clock, which nobody can set, stays as it is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    char text[32] = "";
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (failed || clock != CLOCK_REALTIME) return failed;
    int file = open(getenv("WALL_OFFSET"), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atoll(text);
        close(file);
    }
    return 0;
}
