#include_next <linux/swab.h>
/* musl has no __GLIBC_PREREQ, which may not even stand in a condition then. */
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 43)
#include <linux/openat2.h>
#endif
#endif
