/* Opens the files of one folder with O_DIRECT, for a program that cannot be told to. Preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int open_with(const char *name, const char *path, int flags, int mode)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
	const char *folder = getenv("DIRECT_BELOW");

	if (folder != NULL && strncmp(path, folder, strlen(folder)) == 0)
		flags |= O_DIRECT;
	return next(path, flags, mode);
}

#define OPEN(name)                                                 \
	int name(const char *path, int flags, ...)                 \
	{                                                          \
		va_list rest;                                      \
		va_start(rest, flags);                             \
		int mode = va_arg(rest, int);                      \
		va_end(rest);                                      \
		return open_with(#name, path, flags, mode);        \
	}

OPEN(open)
OPEN(open64)
