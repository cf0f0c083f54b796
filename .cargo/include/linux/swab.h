#include_next <linux/swab.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 43)
#include <linux/openat2.h>
#endif
