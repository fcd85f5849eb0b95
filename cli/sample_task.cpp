#include "cli/sample_task.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "engine/error.h"
#include "engine/graph/ops.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "models/files/lower_case.h"
#include "models/images/animation.h"
#include "models/images/decode.h"
#include "models/images/levels.h"
#include "models/images/resize.h"
#include "models/images/sample_picture.h"

namespace fluxion::cli {

namespace {

constexpr std::int64_t usual_frames = 40;
constexpr double usual_blur = 2;

std::string pixels_text(std::int64_t height, std::int64_t width) {
  return std::to_string(width) + " x " + std::to_string(height);
}

// A picture file as [height, width, channels] in [-1, 1].
std::vector<float> read_values(const std::string& file, Shape& shape, std::int64_t channels) {
  const Image image = read_image(file);
  std::vector<float> levels(image.pixels.begin(), image.pixels.end());
  std::vector<float> values(levels.size() / static_cast<std::size_t>(image.channels) *
                            static_cast<std::size_t>(channels));
  convert_channels(levels, image.channels, values, channels);
  std::transform(values.begin(), values.end(), values.begin(), from_level);
  shape = {image.height, image.width, channels};
  return values;
}

// A picture brought to the size of samples: as it is where it has that size; its middle square,
// resampled, where samples are squares.
std::vector<float> fitted(const std::string& option, const std::string& file,
                          const Shape& sample_shape) {
  Shape shape;
  std::vector<float> values = read_values(file, shape, sample_shape[2]);
  if (shape == sample_shape) return values;
  if (sample_shape[0] != sample_shape[1])
    throw Error("sample: " + option + " " + file + " has " + pixels_text(shape[0], shape[1]) +
                " pixels; samples of this model have " +
                pixels_text(sample_shape[0], sample_shape[1]));
  std::vector<float> resized(static_cast<std::size_t>(sample_shape.elements()));
  SquareResize(shape[0], shape[1], sample_shape[0])(values, sample_shape[2], resized);
  return resized;
}

void check_images(const std::string& option, const Shape& sample_shape) {
  if (sample_shape.rank() != 3 || (sample_shape[2] != 1 && sample_shape[2] != 3))
    throw Error("sample: " + option + " is for models of grey or RGB images, not of samples " +
                to_string(sample_shape));
}

}  // namespace

std::string SampleTask::wants_model() const {
  if (!init_image.empty()) return "--init-image";
  if (!inpaint.empty()) return "--inpaint";
  if (!enlarge.empty()) return "--enlarge";
  if (!deblur.empty()) return "--deblur";
  if (to_class) return "--to-class";
  if (!animate.empty() && !interpolate) return "--animate without --interpolate";
  return "";
}

void add_sample_task(const Parser& parser, SampleTask& task) {
  const std::string pictures = "From a picture", ways = "Interpolation and animation";
  parser
      .add_option(
          "--init-image", task.init_image,
          "Begin with this picture under noise: variations of it. Other sizes are resampled")
      .type_name("IMAGE")
      .group(pictures);
  parser
      .add_number("--strength", task.strength, real(0.001, 1),
                  "--init-image: share of the way from data to noise that is taken back; 1: "
                  "nothing of the picture is left (default 0.6)")
      .type_name("X")
      .group(pictures);
  parser
      .add_option("--inpaint", task.inpaint,
                  "Draw a part of this picture anew, the white of --mask")
      .type_name("IMAGE")
      .group(pictures);
  parser.add_option("--mask", task.mask, "--inpaint: a picture, white where samples are drawn anew")
      .type_name("IMAGE")
      .group(pictures);
  parser
      .add_option(
          "--enlarge", task.enlarge,
          "Super-resolution: samples that look like this small picture when reduced; its sides are "
          "whole fractions of a sample's")
      .type_name("IMAGE")
      .group(pictures);
  parser
      .add_option("--deblur", task.deblur,
                  "Samples that look like this picture when blurred by --blur")
      .type_name("IMAGE")
      .group(pictures);
  parser
      .add_number("--blur", task.blur, real(0.1, 100),
                  "--deblur: standard deviation of the blur, in pixels of a sample (default 2)")
      .type_name("X")
      .group(pictures);
  parser
      .add_option("--steering", task.steering,
                  "How samples are made to agree with the picture: flowchef, by the error of what "
                  "the network sees in each step, or replacement of the known pixels under noise "
                  "(default: replacement for --inpaint, else flowchef)")
      .check(one_of({"flowchef", "replacement"}))
      .type_name("NAME")
      .group(pictures);
  parser
      .add_number("--steering-scale", task.steering_scale, real(1e-4, 100),
                  "flowchef: share of the error that each step takes back (default 1)")
      .type_name("X")
      .group(pictures);
  parser
      .add_option(
          "--interpolate", task.interpolate,
          "Go from the noise of seed A to that of seed B in --count samples, a row for each "
          "class")
      .type_name("A:B")
      .group(ways);
  parser
      .add_option("--to-class", task.to_class,
                  "Go from --class to this class in --count samples of one noise, or of "
                  "--interpolate")
      .type_name("C")
      .group(ways);
  parser
      .add_option("--animate", task.animate,
                  "Moving picture to write: how samples come from noise, or the way of "
                  "--interpolate or --to-class")
      .type_name("FILE.gif|.png")
      .group(ways);
  parser.add_number("--frames", task.frames, whole(2, 1000), "--animate: frames (default 40)")
      .type_name("N")
      .group(ways);
}

void check(const SampleTask& task) {
  const auto only = [](bool given, bool with, const char* option, const char* partner) {
    if (given && !with) throw Error("sample: " + std::string(option) + " is for " + partner);
  };
  only(task.strength.has_value(), !task.init_image.empty(), "--strength", "--init-image");
  only(!task.mask.empty(), !task.inpaint.empty(), "--mask", "--inpaint");
  only(!task.inpaint.empty(), !task.mask.empty(), "--inpaint",
       "a picture with --mask: white where samples are drawn anew");
  only(task.blur.has_value(), !task.deblur.empty(), "--blur", "--deblur");
  only(task.steering.has_value(), task.steers(), "--steering", "--inpaint, --enlarge or --deblur");
  only(task.steering_scale.has_value(),
       task.steers() && (!task.inpaint.empty() ? task.steering == "flowchef" : true),
       "--steering-scale", "--steering flowchef");
  only(task.frames.has_value(), !task.animate.empty(), "--frames", "--animate");
  const int pictures = static_cast<int>(!task.inpaint.empty()) +
                       static_cast<int>(!task.enlarge.empty()) +
                       static_cast<int>(!task.deblur.empty());
  if (pictures > 1) throw Error("sample: --inpaint, --enlarge and --deblur are one at a time");
  if (task.interpolate) seeds_between(*task.interpolate);
  if (task.animate.empty()) return;
  const std::string ending = lower_case(std::filesystem::path(task.animate).extension().string());
  if (ending != ".gif" && ending != ".png" && ending != ".apng")
    throw Error("sample: --animate " + task.animate +
                ": moving pictures are written as .gif or .png");
}

std::vector<float> initial_data(const SampleTask& task, const Shape& sample_shape) {
  if (task.init_image.empty()) return {};
  check_images("--init-image", sample_shape);
  return fitted("--init-image", task.init_image, sample_shape);
}

std::optional<Steering> chosen_steering(const SampleTask& task, const Shape& sample_shape,
                                        const Device& device) {
  if (!task.steers()) return {};
  Steering steering;
  steering.kind = task.steering          ? steering_kind_from(*task.steering)
                  : task.inpaint.empty() ? SteeringKind::flowchef
                                         : SteeringKind::replacement;
  steering.scale = task.steering_scale.value_or(1);
  Observation& known = steering.known;
  if (!task.inpaint.empty()) {
    check_images("--inpaint", sample_shape);
    known.value =
        Tensor::from(fitted("--inpaint", task.inpaint, sample_shape), sample_shape, device);
    const Shape of_mask{sample_shape[0], sample_shape[1], 1};
    std::vector<float> mask = fitted("--mask", task.mask, of_mask);
    // White is unknown.
    for (float& value : mask) value = value > 0 ? 0.0f : 1.0f;
    const auto unknown = std::count(mask.begin(), mask.end(), 0.0f);
    if (unknown == 0)
      throw Error("sample: --mask " + task.mask +
                  " is black everywhere: make white what is to be drawn anew");
    known.mask = Tensor::from(mask, of_mask, device);
  } else if (!task.enlarge.empty()) {
    check_images("--enlarge", sample_shape);
    known.kind = ObservationKind::reduced;
    Shape shape;
    const std::vector<float> values = read_values(task.enlarge, shape, sample_shape[2]);
    known.factor = std::max<std::int64_t>(1, sample_shape[0] / std::max<std::int64_t>(1, shape[0]));
    if (shape[0] * known.factor != sample_shape[0] || shape[1] * known.factor != sample_shape[1])
      throw Error("sample: --enlarge " + task.enlarge + " has " + pixels_text(shape[0], shape[1]) +
                  " pixels; it must have a whole fraction of the " +
                  pixels_text(sample_shape[0], sample_shape[1]) + " of a sample");
    known.value = Tensor::from(values, shape, device);
  } else {
    check_images("--deblur", sample_shape);
    known.kind = ObservationKind::blurred;
    known.blur = task.blur.value_or(usual_blur);
    known.value = Tensor::from(fitted("--deblur", task.deblur, sample_shape), sample_shape, device);
  }
  check(steering, sample_shape);
  return steering;
}

std::pair<std::uint64_t, std::uint64_t> seeds_between(const std::string& text) {
  const std::size_t colon = text.find(':');
  if (colon != text.npos) {
    const auto seed_in = [](const std::string& part) -> std::optional<std::uint64_t> {
      const std::optional<std::string> number = seeds().read(part);
      return number ? parse_number<std::uint64_t>(*number) : std::nullopt;
    };
    const auto a = seed_in(text.substr(0, colon)), b = seed_in(text.substr(colon + 1));
    // Of equal ones the way between would be no noise, but as much as 1.4 times it.
    if (a && b && *a == *b)
      throw Error("sample: --interpolate " + text +
                  " goes nowhere, from a seed to itself; give two that differ");
    if (a && b) return {*a, *b};
  }
  throw Error("sample: --interpolate wants two seeds, such as 3:8, got '" + text + "'");
}

std::vector<float> noise_between(const std::vector<float>& a, const std::vector<float>& b,
                                 std::int64_t count, std::int64_t rows) {
  std::vector<float> result;
  result.reserve(a.size() * static_cast<std::size_t>(count * rows));
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t i = 0; i < count; ++i) {
      const double angle = std::numbers::pi / 2 * static_cast<double>(i) /
                           static_cast<double>(std::max<std::int64_t>(1, count - 1));
      // The ends are a and b themselves.
      const auto of_a = static_cast<float>(i + 1 == count && count > 1 ? 0 : std::cos(angle)),
                 of_b = static_cast<float>(std::sin(angle));
      for (std::size_t k = 0; k < a.size(); ++k) result.push_back(of_a * a[k] + of_b * b[k]);
    }
  return result;
}

Velocity between_classes(const Velocity& network, std::int32_t from, std::int32_t to,
                         std::int64_t null_class, std::int64_t count) {
  const auto last = static_cast<double>(std::max<std::int64_t>(1, count - 1));
  return [=](const Tensor& z, const Times& times, const Tensor& place) {
    const auto twice = [](const Tensor& x) { return concat({x, x}, 0); };
    const Tensor open = eq(place, full_like(place, static_cast<double>(count))),
                 null = full_like(place, static_cast<double>(null_class));
    const auto of = [&](std::int32_t label) { return where(open, null, full_like(place, label)); };
    const std::vector<Tensor> both = split(
        network(twice(z), {twice(times.t), twice(times.r)}, concat({of(from), of(to)}, 0)), 2, 0);
    const Tensor share = minimum(place.to(DType::f32) / last, 1.0);
    return both[0] + over_samples(share.to(z.dtype()), z.rank()) * (both[1] - both[0]);
  };
}

std::int64_t frames_of(const SampleTask& task) { return task.frames.value_or(usual_frames); }

Animation::Animation(Shape sample_shape, std::int64_t count, std::int64_t steps,
                     std::int64_t frames, const GridOptions& grid)
    : sample_shape_(std::move(sample_shape)),
      count_(count),
      steps_(steps),
      frames_(frames),
      grid_(grid),
      states_(static_cast<std::size_t>(steps + 1)) {
  for (std::int64_t i = 0; i < frames; ++i)
    for (const double state : {std::floor(place(i)), std::ceil(place(i))})
      states_[static_cast<std::size_t>(state)].resize(
          static_cast<std::size_t>(count * sample_shape_.elements()));
}

std::uint64_t Animation::host_bytes(const Shape& sample_shape, std::int64_t count,
                                    std::int64_t steps, std::int64_t frames,
                                    const GridOptions& grid) {
  const auto states = static_cast<std::uint64_t>(std::min(steps + 1, 2 * frames));
  return states * static_cast<std::uint64_t>(count * sample_shape.elements()) * sizeof(float) +
         static_cast<std::uint64_t>(frames) * picture_bytes(sample_shape, count, grid);
}

double Animation::place(std::int64_t frame) const {
  return static_cast<double>(frame * steps_) / static_cast<double>(frames_ - 1);
}

void Animation::see(std::size_t state, std::int64_t first, std::span<const float> values) {
  std::vector<float>& kept = states_.at(state);
  if (kept.empty()) return;
  std::copy(values.begin(), values.end(), kept.begin() + first * sample_shape_.elements());
}

// What a state is shown multiplied by: on some paths noise is far larger than data, and images of
// it are shown as large as N(0, 1).
double Animation::scale_of(const std::vector<float>& state) const {
  if (sample_shape_.rank() != 3) return 1;
  double sum = 0;
  for (const float value : state) sum += static_cast<double>(value) * value;
  return 1 / std::max(1.0, std::sqrt(sum / static_cast<double>(state.size())));
}

std::vector<Image> Animation::frames() const {
  float reach = 0;  // of points: the same axes for all frames
  for (const std::vector<float>& state : states_)
    if (!state.empty()) reach = std::max(reach, reach_of(state));
  std::vector<Image> frames;
  for (std::int64_t i = 0; i < frames_; ++i) {
    const double at = place(i), share = at - std::floor(at);
    const std::vector<float>&before = states_[static_cast<std::size_t>(std::floor(at))],
          &after = states_[static_cast<std::size_t>(std::ceil(at))];
    const double of_before = (1 - share) * scale_of(before), of_after = share * scale_of(after);
    std::vector<float> values(before.size());
    for (std::size_t k = 0; k < values.size(); ++k)
      values[k] = static_cast<float>(of_before * before[k] + of_after * after[k]);
    if (sample_shape_.rank() == 3)
      frames.push_back(sample_picture(sample_shape_, values, grid_));
    else
      frames.push_back(scatter_plot({{.points = values}}, {.low = -reach, .high = reach}));
  }
  return frames;
}

std::vector<Image> frames_of_rows(const Shape& sample_shape, const std::vector<float>& values,
                                  std::int64_t columns, const GridOptions& grid) {
  const auto elements = static_cast<std::size_t>(sample_shape.elements());
  const auto wide = static_cast<std::size_t>(columns), rows = values.size() / elements / wide;
  std::vector<float> drawn;  // of points: the same axes for all frames
  for (std::size_t i = 0; i < values.size(); ++i)
    if (i % elements < 2) drawn.push_back(values[i]);
  const float reach = reach_of(drawn);
  std::vector<Image> frames;
  for (std::size_t column = 0; column < wide; ++column) {
    std::vector<float> shown;
    for (std::size_t row = 0; row < rows; ++row) {
      const auto from =
          values.begin() + static_cast<std::ptrdiff_t>((row * wide + column) * elements);
      shown.insert(shown.end(), from, from + static_cast<std::ptrdiff_t>(elements));
    }
    frames.push_back(sample_picture(sample_shape, shown, grid, {}, {}, 0, reach));
  }
  return frames;
}

void write_animation(const std::string& file, const std::vector<Image>& frames,
                     std::span<const ImageText> notes) {
  const bool gif = lower_case(std::filesystem::path(file).extension().string()) == ".gif";
  replace_file(file, gif ? encode_gif(frames) : encode_apng(frames, notes));
}

}  // namespace fluxion::cli
