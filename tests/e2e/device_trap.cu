// Preloaded into a server by tests: on SIGUSR2 a kernel traps, which no process recovers from, as
// with any fault of the device in the middle of its work.
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <signal.h>

#include <thread>

namespace {

__global__ void Trap() { __trap(); }

// Blocked before any other thread starts, so that the waiting one alone takes it.
[[gnu::constructor]] void Arm() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    int signal = 0;
    sigwait(&signals, &signal);
    Trap<<<1, 1>>>();
    cudaDeviceSynchronize();
  }).detach();
}

}  // namespace
