// A full disk for one process and its children, by LD_PRELOAD: while the file FULL_DISK_FLAG exists, no file whose path
// holds FULL_DISK_UNDER grows beyond the number of bytes that stands in it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int refuses(int fd, off_t end) {
  const char* flag = getenv("FULL_DISK_FLAG");
  const char* under = getenv("FULL_DISK_UNDER");
  if (flag == NULL || under == NULL) return 0;
  const int saved = errno;
  FILE* file = fopen(flag, "re");
  errno = saved;
  if (file == NULL) return 0;
  long long limit = 0;
  if (fscanf(file, "%lld", &limit) != 1) limit = 0;
  fclose(file);
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  struct stat now;
  if (length <= 0 || fstat(fd, &now) != 0 || !S_ISREG(now.st_mode)) return 0;
  path[length] = '\0';
  if (strstr(path, under) == NULL || end <= now.st_size || end <= limit) return 0;
  errno = ENOSPC;
  return 1;
}

static off_t sum(const struct iovec* parts, int count) {
  off_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += (off_t)parts[i].iov_len;
  return bytes;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void* data, size_t bytes) {
  struct stat now;
  // What is written at the end of a file, as a log is.
  if (fstat(fd, &now) == 0 && S_ISREG(now.st_mode) && refuses(fd, now.st_size + (off_t)bytes)) return -1;
  return NEXT(write)(fd, data, bytes);
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  if (refuses(fd, offset + (off_t)bytes)) return -1;
  return NEXT(pwrite)(fd, data, bytes, offset);
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t offset) {
  return pwrite(fd, data, bytes, offset);
}

ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  if (refuses(fd, offset + sum(parts, count))) return -1;
  return NEXT(pwritev)(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return pwritev(fd, parts, count, offset);
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  return refuses(fd, offset + bytes) ? ENOSPC : NEXT(posix_fallocate)(fd, offset, bytes);
}

int posix_fallocate64(int fd, off64_t offset, off64_t bytes) {
  return posix_fallocate(fd, offset, bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
  return refuses(fd, offset + bytes) ? -1 : NEXT(fallocate)(fd, mode, offset, bytes);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) {
  return fallocate(fd, mode, offset, bytes);
}
