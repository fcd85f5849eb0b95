// A race of several programs over the same work, on Google Benchmark: repetitions of all contenders
// alternate at random, and medians are compared.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace fluxion::bench {

struct Contender {
  std::string name;  // "fluxion", "openblas", ...
  // Makes ready - data, thread counts - and returns the work itself, to be called and timed many
  // times.
  std::function<std::function<void()>()> prepare;
};

// Contenders for one row of the table.
struct Event {
  std::string table;  // "products"
  std::string name;   // "1024 x 1024 x 1024"
  int threads = 1;
  double amount = 0;                  // operations, or bytes read and written, a call
  std::vector<Contender> contenders;  // ours first
  std::string compared_with{};  // an event of the same table and as many threads, whose time ours
                                // is told in
};

std::vector<Event> products();          // products.cpp
std::vector<Event> convolutions();      // convolution.cpp
std::vector<Event> attention_passes();  // attention.cpp
std::vector<Event> maps_and_rows();     // maps.cpp

}  // namespace fluxion::bench
