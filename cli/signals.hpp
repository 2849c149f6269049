// SIGINT and SIGTERM: held back from the first moment of the process until the command has its own handling in place.
#pragma once

#include <csignal>

namespace walferry::cli {

inline void change_stop_signals(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(how, &set, nullptr);
}

inline void hold_stop_signals() {
  change_stop_signals(SIG_BLOCK);
}
inline void release_stop_signals() {
  change_stop_signals(SIG_UNBLOCK);
}

}  // namespace walferry::cli
