/* A disk that stands still: while the file that HUNG_DISK_FLAG names is there, calls on files below HUNG_DISK don't
   return. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void wait_for_disk(const char *path) {
    const char *folder = getenv("HUNG_DISK"), *flag = getenv("HUNG_DISK_FLAG");
    if (!folder || !flag || !path || strncmp(path, folder, strlen(folder)) != 0) return;
    while (access(flag, F_OK) == 0) usleep(1000);
}

static void wait_for_disk_of(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    wait_for_disk(path);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t pread64(int fd, void *to, size_t size, off64_t at) { REAL(pread64); wait_for_disk_of(fd); return real(fd, to, size, at); }
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) { REAL(pwrite64); wait_for_disk_of(fd); return real(fd, from, size, at); }
int fdatasync(int fd) { REAL(fdatasync); wait_for_disk_of(fd); return real(fd); }
int fsync(int fd) { REAL(fsync); wait_for_disk_of(fd); return real(fd); }
int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    wait_for_disk(path);
    return real(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    REAL(open);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    wait_for_disk(path);
    return real(path, flags, mode);
}
