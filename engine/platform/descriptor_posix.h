// A file descriptor that closes itself.
#pragma once

#include <unistd.h>

#include <utility>

namespace fluxion {

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }
  void reset(int value) { const Descriptor before(std::exchange(value_, value)); }

 private:
  int value_;
};

}  // namespace fluxion
