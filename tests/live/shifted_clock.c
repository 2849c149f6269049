// A wrong clock for one process and its children, by LD_PRELOAD: the time of day is CLOCK_SHIFT_SECONDS later than it is.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static time_t shift(void) {
  const char* seconds = getenv("CLOCK_SHIFT_SECONDS");
  return seconds == NULL ? 0 : (time_t)atoll(seconds);
}

int gettimeofday(struct timeval* now, void* zone) {
  const int status = NEXT(gettimeofday)(now, zone);
  if (status == 0) now->tv_sec += shift();
  return status;
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  const int status = NEXT(clock_gettime)(clock, now);
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
  return status;
}

time_t time(time_t* now) {
  struct timespec read;
  if (clock_gettime(CLOCK_REALTIME, &read) != 0) return (time_t)-1;
  if (now != NULL) *now = read.tv_sec;
  return read.tv_sec;
}
