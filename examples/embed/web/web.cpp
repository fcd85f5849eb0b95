// What the page asks of the runtime: a few functions of plain numbers, since JavaScript reads no
// C structures. One generator at a time, on one thread.
#include <emscripten/emscripten.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fluxion.hpp"

namespace {

struct Page {
  std::optional<fluxion::runtime::Device> device;
  std::optional<fluxion::runtime::Generator> generator;
  std::vector<std::uint8_t> pixels;
  std::string message;
};
Page& page() {
  static Page page;
  return page;
}

// 0, or 1 with a message.
template <class Body>
int reported(Body body) {
  try {
    body();
    page().message.clear();
    return 0;
  } catch (const std::exception& error) {
    page().message = error.what();
    return 1;
  }
}

}  // namespace

extern "C" {

EMSCRIPTEN_KEEPALIVE const char* web_message() { return page().message.c_str(); }
EMSCRIPTEN_KEEPALIVE const char* web_version() { return fluxion_version(); }

EMSCRIPTEN_KEEPALIVE int web_open(const std::uint8_t* bytes, int size) {
  return reported([&] {
    if (!page().device) page().device.emplace("cpu");
    // The one before stays until there is another.
    fluxion::runtime::Generator next(*page().device, bytes, static_cast<std::size_t>(size));
    if (next.info().channels == 0)
      throw fluxion::runtime::Error(FLUXION_INVALID_ARGUMENT, "its samples are no images");
    page().generator = std::move(next);
  });
}

EMSCRIPTEN_KEEPALIVE int web_height() { return static_cast<int>(page().generator->info().height); }
EMSCRIPTEN_KEEPALIVE int web_width() { return static_cast<int>(page().generator->info().width); }
EMSCRIPTEN_KEEPALIVE int web_channels() {
  return static_cast<int>(page().generator->info().channels);
}
EMSCRIPTEN_KEEPALIVE int web_classes() {
  return static_cast<int>(page().generator->info().classes);
}
EMSCRIPTEN_KEEPALIVE const char* web_class_name(int number) {
  const fluxion_info info = page().generator->info();
  return info.class_names ? info.class_names[number] : "";
}

// `count` images [count, height, width, channels] of classes chosen .. chosen + count - 1, modulo
// the classes; their noise lies between that of two seeds: mix 0 is the first, 1 the second.
EMSCRIPTEN_KEEPALIVE int web_draw(double seed, double other, double mix, int chosen, int count) {
  return reported([&] {
    const fluxion::runtime::Generator& generator = *page().generator;
    const auto classes = static_cast<int>(generator.info().classes);
    fluxion::runtime::Request request;
    request.seed = static_cast<std::uint64_t>(seed);
    request.noise = generator.noise(request);
    if (mix != 0) {
      fluxion::runtime::Request next;
      next.seed = static_cast<std::uint64_t>(other);
      const std::vector<float> to = generator.noise(next);
      // Weights on the unit circle: a mixture of independent normal numbers stays normal.
      const double angle = mix * 1.5707963267948966;
      const auto a = static_cast<float>(std::cos(angle)), b = static_cast<float>(std::sin(angle));
      for (std::size_t i = 0; i < to.size(); ++i)
        request.noise[i] = a * request.noise[i] + b * to[i];
    }
    const std::vector<float> one = request.noise;
    for (int i = 1; i < count; ++i)
      request.noise.insert(request.noise.end(), one.begin(), one.end());
    request.count = count;
    request.batch = count;
    for (int i = 0; classes > 0 && i < count; ++i)
      request.classes.push_back((chosen + i) % classes);
    page().pixels = generator.pixels(request);
  });
}
EMSCRIPTEN_KEEPALIVE const std::uint8_t* web_pixels() { return page().pixels.data(); }

}  // extern "C"
