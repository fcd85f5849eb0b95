// Threads, as many as the system gives.
#pragma once

#include <cstddef>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace fluxion {

// Starts `wanted` threads that run body(), or body(stop_token), or fewer, down to none, where the
// system refuses more: whoever asks must be able to do the work alone.
template <class Body>
std::vector<std::jthread> start_threads(std::size_t wanted, const Body& body) {
  std::vector<std::jthread> threads;
  try {
    threads.reserve(wanted);
    while (threads.size() < wanted) threads.emplace_back(body);
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {
  }
  return threads;
}

}  // namespace fluxion
