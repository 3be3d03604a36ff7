"""A disk that hangs."""

import subprocess

# Calls of this take the place of the system's: as long as a file is there, those for files below some directory do not come back.
HANGS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int fdatasync(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    char link[64], path[4096], held[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    snprintf(held, sizeof held, "%s.held", getenv("HANG_WHILE"));
    while (strstr(path, getenv("HANG_BELOW")) && access(getenv("HANG_WHILE"), F_OK) == 0) {
        close(open(held, O_CREAT | O_WRONLY, 0600));
        usleep(5000);
    }
    return next(fd);
}
"""


def hanging(folder, below):
    """A file, and the environment of a daemon whose syncs of files below a directory hang as long as that file is there. Beside it
    is one with `.held` behind its name when one does."""
    (folder / "hangs.c").write_text(HANGS)
    library, file = folder / "hangs.so", folder / "hang"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(folder / "hangs.c"), "-ldl"], check=True)
    return file, {"LD_PRELOAD": str(library), "HANG_WHILE": str(file), "HANG_BELOW": below}
