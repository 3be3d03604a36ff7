"""A disk with a sector that can not be read."""

import subprocess

# Calls of these take the place of the system's: those that touch one sector of one file fail with EIO.
UNREADABLE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static int is_lost(int fd, size_t length, long long at) {
    struct stat file;
    long long sector = atoll(getenv("LOST_SECTOR")) * 512;
    if (fstat(fd, &file) != 0 || (long long)file.st_ino != atoll(getenv("LOST_IN"))) return 0;
    return at < sector + 512 && at + (long long)length > sector;
}
ssize_t pread64(int fd, void *buffer, size_t length, off64_t at) {
    if (is_lost(fd, length, at)) { errno = EIO; return -1; }
    return ((ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64"))(fd, buffer, length, at);
}
ssize_t pread(int fd, void *buffer, size_t length, off_t at) {
    if (is_lost(fd, length, at)) { errno = EIO; return -1; }
    return ((ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread"))(fd, buffer, length, at);
}
"""


def unreadable(folder, file, sector):
    """The environment of a daemon that can not read a sector (512 bytes) of a file, whatever the file is called later."""
    (folder / "lost.c").write_text(UNREADABLE)
    library = folder / "lost.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(folder / "lost.c"), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "LOST_IN": str(file.stat().st_ino), "LOST_SECTOR": str(sector)}
