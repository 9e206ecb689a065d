/* A file system without locks, for whoever loads this before the C library: flock fails with NO_FLOCK, an errno. */
#include <errno.h>
#include <stdlib.h>

int flock(int descriptor, int operation)
{
    const char *number = getenv("NO_FLOCK");
    (void)descriptor, (void)operation;
    errno = number ? atoi(number) : ENOLCK;
    return -1;
}
