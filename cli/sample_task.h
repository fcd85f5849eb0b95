// What `fluxion sample` draws besides samples of noise alone: a picture begun anew, completed,
// enlarged or sharpened, the way between two seeds or classes, and the way from noise to data as an
// animation.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "models/images/image.h"
#include "models/samplers/sampler.h"

namespace fluxion::cli {

inline constexpr double usual_strength = 0.6;

struct SampleTask {
  std::string init_image;
  std::optional<double> strength;
  std::string inpaint, mask, enlarge, deblur;
  std::optional<double> blur, steering_scale;
  std::optional<std::string> steering;
  std::optional<std::string> interpolate;  // "3:8"
  std::optional<std::string> to_class;
  std::string animate;
  std::optional<std::int64_t> frames;

  bool steers() const { return !inpaint.empty() || !enlarge.empty() || !deblur.empty(); }
  // What only a model can do, not a sampler file: the option's name, or none.
  std::string wants_model() const;
};

void add_sample_task(const Parser& parser, SampleTask& task);
// Throws Error for options that don't go together.
void check(const SampleTask& task);

// The picture of --init-image as values of a sample; empty without one. Throws Error for one that
// does not fit.
std::vector<float> initial_data(const SampleTask& task, const Shape& sample_shape);
std::optional<Steering> chosen_steering(const SampleTask& task, const Shape& sample_shape,
                                        const Device& device);

// The two seeds of --interpolate. Throws Error for another text, and for equal ones: noise_between
// wants independent noise.
std::pair<std::uint64_t, std::uint64_t> seeds_between(const std::string& text);
// From noise a to noise b, `count` times, each standard normal where a and b are: cos(w pi / 2) a +
// sin(w pi / 2) b, w from 0 to 1; all of it `rows` times.
std::vector<float> noise_between(const std::vector<float>& a, const std::vector<float>& b,
                                 std::int64_t count, std::int64_t rows);
// A network whose labels are places on the way between two classes: place i of 0 .. count - 1 asks
// for both, (1 - share) u(z, from) + share u(z, to) with share i / (count - 1); place `count`
// leaves the class open.
Velocity between_classes(const Velocity& network, std::int32_t from, std::int32_t to,
                         std::int64_t null_class, std::int64_t count);

// The states of samples on their way from noise, as a moving picture of so many frames; between two
// states samples move evenly.
class Animation {
 public:
  Animation(Shape sample_shape, std::int64_t count, std::int64_t steps, std::int64_t frames,
            const GridOptions& grid);
  // Of its states and frames, all of which are held at once.
  static std::uint64_t host_bytes(const Shape& sample_shape, std::int64_t count, std::int64_t steps,
                                  std::int64_t frames, const GridOptions& grid);
  // As Sampler::Request::visit.
  void see(std::size_t state, std::int64_t first, std::span<const float> values);
  std::vector<Image> frames() const;

 private:
  // Frame i shows the state before this place and the one after it.
  double place(std::int64_t frame) const;
  double scale_of(const std::vector<float>& state) const;

  Shape sample_shape_;
  std::int64_t count_, steps_, frames_;
  GridOptions grid_;
  std::vector<std::vector<float>> states_;  // those that frames show; the others are empty
};

// --frames, or what is usual.
std::int64_t frames_of(const SampleTask& task);
// Writes .gif, or .png as APNG. Throws Error for another ending, IoError.
void write_animation(const std::string& file, const std::vector<Image>& frames,
                     std::span<const ImageText> notes);
// One frame for each of `columns` samples of every row of samples [rows, columns, ..].
std::vector<Image> frames_of_rows(const Shape& sample_shape, const std::vector<float>& values,
                                  std::int64_t columns, const GridOptions& grid);

}  // namespace fluxion::cli
