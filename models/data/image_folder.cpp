#include "models/data/image_folder.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "engine/error.h"
#include "engine/platform/file.h"
#include "engine/platform/machine.h"
#include "engine/platform/threads.h"
#include "models/data/checksum.h"
#include "models/data/image_list.h"
#include "models/files/file_array.h"
#include "models/images/decode.h"
#include "models/images/levels.h"
#include "models/images/resize.h"

namespace fluxion {

namespace {

std::string text(const ImageInfo& info) {
  return std::to_string(info.width) + " x " + std::to_string(info.height);
}

// What the files of a list are, and why those that can't be used can't.
struct Scan {
  std::vector<ImageInfo> infos;  // channels 0: can't be read
  std::vector<std::string> reasons;
};

// Structure only, on some threads; this one tells how far they are.
Scan scan(const std::vector<ListedImage>& images,
          const std::function<void(std::int64_t, std::int64_t)>& progress) {
  Scan result{std::vector<ImageInfo>(images.size()), std::vector<std::string>(images.size())};
  std::atomic<std::size_t> next = 0, done = 0;
  std::mutex mutex;
  std::condition_variable finished;
  std::exception_ptr failure;
  const auto work = [&](std::stop_token stop) {
    try {
      for (std::size_t i = next++; i < images.size() && !stop.stop_requested(); i = next++) {
        try {
          const std::string name = images[i].path.string();
          result.infos[i] = image_info(MappedFile(images[i].path).bytes(), name);
        } catch (const OutOfMemory&) {
          throw;
        } catch (const Error& error) {
          result.infos[i].channels = 0;
          result.reasons[i] = error.what();
        }
        ++done;
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    finished.notify_one();
  };
  {
    const auto wanted = std::clamp<std::size_t>(
        images.size() / 16, 1, static_cast<std::size_t>(std::min(usable_cpus(), 16)));
    const std::vector<std::jthread> threads = start_threads(wanted, work);
    if (threads.empty()) work({});
    std::unique_lock lock(mutex);
    while (!failure && done < images.size()) {
      finished.wait_for(lock, std::chrono::milliseconds(100));
      if (!progress) continue;
      lock.unlock();  // whatever it does, or throws
      progress(static_cast<std::int64_t>(done), static_cast<std::int64_t>(images.size()));
      lock.lock();
    }
  }
  if (failure) std::rethrow_exception(failure);
  if (progress)
    progress(static_cast<std::int64_t>(images.size()), static_cast<std::int64_t>(images.size()));
  return result;
}

bool is_readable(const std::filesystem::path& path) {
  try {
    image_info(MappedFile(path).bytes(), path.string());
    return true;
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
    return false;
  }
}

// Leaves out classes none of whose images is readable, with a warning; labels of their images
// become -1.
void keep_readable_classes(ImageList& list, const std::function<bool(std::size_t)>& readable) {
  std::vector<std::int64_t> images(list.class_names.size()), whole(list.class_names.size());
  if (images.empty()) return;
  for (std::size_t i = 0; i < list.images.size(); ++i) {
    const auto label = static_cast<std::size_t>(list.images[i].label);
    ++images[label];
    if (whole[label] == 0 && readable(i)) whole[label] = 1;
  }
  std::vector<std::string> kept;
  std::vector<std::int32_t> number_of(images.size(), -1);
  for (std::size_t label = 0; label < images.size(); ++label) {
    if (whole[label] != 0) {
      number_of[label] = static_cast<std::int32_t>(kept.size());
      kept.push_back(list.class_names[label]);
    } else {
      list.warnings.insert(list.warnings.begin(),
                           list.part.string() + ": none of the " + std::to_string(images[label]) +
                               " images of class " + list.class_names[label] +
                               " can be read; the class is left out");
    }
  }
  for (ListedImage& image : list.images)
    image.label = number_of[static_cast<std::size_t>(image.label)];
  list.class_names = std::move(kept);
}

// One class alone tells nothing apart.
void leave_out_single_class(ImageList& list) {
  if (list.class_names.size() != 1) return;
  list.warnings.insert(list.warnings.begin(), list.part.string() + ": only class " +
                                                  list.class_names.front() +
                                                  " is left, and one class tells nothing apart");
  list.class_names.clear();
  for (ListedImage& image : list.images) image.label = 0;
}

// The held-out part has the classes of the training part.
void take_training_classes(ImageList& list, const std::filesystem::path& folder) {
  ImageList training = list_images(folder, Split::train, true);
  keep_readable_classes(training,
                        [&](std::size_t i) { return is_readable(training.images[i].path); });
  leave_out_single_class(training);
  if (training.class_names.empty()) {
    list.class_names.clear();
    for (ListedImage& image : list.images) image.label = 0;
    return;
  }
  if (list.class_names.empty())
    throw Error("data set " + list.part.string() + ": its images have no class, as " +
                list.images.front().path.filename().string() + " does, and the training part has " +
                class_list(training.class_names) + "; leave the classes out (--no-labels)");
  const std::vector<std::int32_t> places = places_of(list.class_names, training.class_names);
  for (std::size_t i = 0; i < places.size(); ++i)
    if (places[i] < 0)
      throw Error("data set " + list.part.string() + ": class " + list.class_names[i] +
                  " is not among those of " + training.part.filename().string());
  for (ListedImage& image : list.images)
    if (image.label >= 0) image.label = places[static_cast<std::size_t>(image.label)];
  list.class_names = std::move(training.class_names);
}

class ImageFolder : public DataSet {
 public:
  ImageFolder(std::string name, Shape shape, std::vector<std::string> class_names,
              std::vector<ListedImage> images, const std::vector<std::string>& warnings,
              std::uint64_t memory)
      : DataSet(std::move(name), shape, class_names, static_cast<std::int64_t>(images.size())),
        stored_names_(std::move(class_names)),
        images_(std::move(images)),
        bytes_(static_cast<std::size_t>(shape.elements())),
        states_(std::make_unique<std::atomic<State>[]>(images_.size())) {
    for (const std::string& line : warnings) warn(line);
    // Untouched pages cost nothing, so the memory fills as images are decoded.
    if (images_.size() <= memory / bytes_)
      kept_ = std::make_unique_for_overwrite<std::uint8_t[]>(images_.size() * bytes_);
  }
  std::uint64_t bytes_to_come() const override { return kept_ ? images_.size() * bytes_ : 0; }

 protected:
  std::vector<std::int32_t> stored_labels() const override {
    std::vector<std::int32_t> labels;
    for (std::size_t i = 0; i < images_.size(); ++i)
      labels.push_back(states_[i] == State::damaged ? -1 : images_[i].label);
    return labels;
  }

  // Of the files, so that sizes and channels asked for do not matter.
  std::vector<std::string> stored_marks() const override {
    constexpr std::size_t read_at_most = 1 << 16;
    std::vector<std::string> marks(stored_names_.size());
    for (const ListedImage& image : images_) {
      const auto label = static_cast<std::size_t>(image.label);
      if (label >= marks.size() || !marks[label].empty()) continue;
      try {
        const MappedFile file(image.path);
        Checksum checksum;
        checksum.add(std::vector<std::uint64_t>{file.bytes().size()});
        checksum.add(file.bytes().first(std::min(file.bytes().size(), read_at_most)));
        marks[label] = checksum.text();
      } catch (const IoError&) {  // it is needed for no batch yet
        marks[label] = "";
      }
    }
    return marks;
  }

  std::int32_t sample(std::uint64_t, std::uint64_t position, std::span<float> x) const override {
    for (std::size_t tries = 0; tries < images_.size(); ++tries) {
      const std::size_t i = (position + tries) % images_.size();
      if (!read(i, x)) continue;
      return images_[i].label;
    }
    throw FormatError("data set " + name() + ": none of its " + std::to_string(images_.size()) +
                      " images can be decoded");
  }

 private:
  enum class State : std::uint8_t { unread, being_kept, kept, damaged };

  bool read(std::size_t i, std::span<float> x) const {
    std::atomic<State>& state = states_[i];
    const State now = state.load(std::memory_order_acquire);
    if (now == State::damaged) return false;
    if (now == State::kept) {
      to_floats({kept_.get() + i * bytes_, bytes_}, x);
      return true;
    }
    std::vector<std::uint8_t> pixels;
    try {
      pixels = decode(images_[i].path);
    } catch (const FormatError&
                 error) {  // a disk that fails or memory that runs out must not pass for damage
      if (state.exchange(State::damaged) != State::damaged) {
        warn(std::string(error.what()) + "; another image takes its place");
        warn_of_lost_class(images_[i].label);
      }
      return false;
    }
    to_floats(pixels, x);
    // Where two threads decode the same image, one of them keeps it.
    State expected = State::unread;
    if (kept_ && state.compare_exchange_strong(expected, State::being_kept)) {
      std::copy(pixels.begin(), pixels.end(), kept_.get() + i * bytes_);
      state.store(State::kept, std::memory_order_release);
    }
    return true;
  }

  void warn_of_lost_class(std::int32_t label) const {
    if (stored_names_.empty()) return;
    std::int64_t images = 0;
    for (std::size_t i = 0; i < images_.size(); ++i) {
      if (images_[i].label != label) continue;
      if (states_[i] != State::damaged) return;
      ++images;
    }
    warn("data set " + name() + ": none of the " + std::to_string(images) + " images of class " +
         stored_names_[static_cast<std::size_t>(label)] + " can be decoded; it has no samples");
  }

  std::vector<std::uint8_t> decode(const std::filesystem::path& path) const {
    const Image image = read_image(path);
    const std::int64_t size = sample_shape()[0], channels = sample_shape()[2];
    std::vector<float> resized(static_cast<std::size_t>(size * size * image.channels));
    SquareResize(image.height, image.width, size)(image.pixels, image.channels, resized);
    std::vector<float> levels(bytes_);
    convert_channels(resized, image.channels, levels, channels);
    std::vector<std::uint8_t> result(bytes_);
    for (std::size_t i = 0; i < bytes_; ++i) result[i] = to_byte(levels[i]);
    return result;
  }

  static void to_floats(std::span<const std::uint8_t> bytes, std::span<float> x) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = from_level(bytes[i]);
  }

  std::vector<std::string> stored_names_;
  std::vector<ListedImage> images_;
  std::size_t bytes_;  // of an image
  std::unique_ptr<std::atomic<State>[]> states_;
  std::unique_ptr<std::uint8_t[]> kept_;  // empty: every epoch decodes again
};

// The size that all files share, or an error that says what to do.
std::int64_t common_size(const std::string& name, const std::vector<ListedImage>& images,
                         const std::vector<ImageInfo>& infos) {
  std::size_t first = infos.size(), smallest = 0;
  std::string wrong;
  const auto short_side = [&](std::size_t i) { return std::min(infos[i].width, infos[i].height); };
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (infos[i].channels == 0) continue;
    if (first == infos.size()) first = smallest = i;
    if (short_side(i) < short_side(smallest)) smallest = i;
    if (wrong.empty() &&
        (infos[i].width != infos[first].width || infos[i].height != infos[first].height))
      wrong = "images differ in size: " + images[first].path.filename().string() + " has " +
              text(infos[first]) + " pixels, " + images[i].path.filename().string() + " " +
              text(infos[i]);
  }
  if (wrong.empty() && infos[first].width != infos[first].height)
    wrong = "images are not square: " + text(infos[first]) + " pixels";
  if (!wrong.empty())
    throw Error("data set " + name + ": " + wrong +
                "; --image-size N cuts out the middle square and resizes it to N x N (the shortest "
                "side is " +
                std::to_string(short_side(smallest)) + ")");
  return infos[first].width;
}

}  // namespace

std::unique_ptr<DataSet> image_folder(const std::filesystem::path& folder,
                                      const DataSetOptions& options) {
  const std::string name = folder.string();
  ImageList list = list_images(folder, options.split, options.labels);
  if (options.by_number) sort_by_number(list.images);
  if (options.labels && options.split == Split::test) take_training_classes(list, folder);
  Scan found = scan(list.images, options.progress);
  bool readable = false, grey = true;
  for (std::size_t i = 0; i < list.images.size(); ++i) {
    if (found.infos[i].channels == 0) {
      list.warnings.push_back(found.reasons[i] + "; left out");
    } else {
      readable = true;
      grey = grey && found.infos[i].channels == 1;
    }
  }
  if (!readable)
    throw Error("data set " + name + ": none of its " + std::to_string(list.images.size()) +
                " images can be read; the first: " + found.reasons[0]);
  if (options.split == Split::train) {
    keep_readable_classes(list, [&](std::size_t i) { return found.infos[i].channels != 0; });
    leave_out_single_class(list);
  }
  const std::int64_t size =
      options.image_size != 0 ? options.image_size : common_size(name, list.images, found.infos);
  check_image_options(name, size, options.channels);
  const std::int64_t channels = options.channels != 0 ? options.channels : grey ? 1 : 3;

  constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t limit = options.memory_limit.value_or(unlimited);
  std::vector<ListedImage> images;
  for (std::size_t i = 0; i < list.images.size(); ++i) {
    const ImageInfo& info = found.infos[i];
    if (info.channels == 0) continue;
    // One at a time is decoded at least.
    const std::uint64_t decoded = static_cast<std::uint64_t>(info.width) *
                                  static_cast<std::uint64_t>(info.height) *
                                  static_cast<std::uint64_t>(info.channels);
    if (decoded > limit) require_memory(decoded, list.images[i].path.string(), limit);
    images.push_back(std::move(list.images[i]));
  }
  const std::uint64_t memory =
      options.memory.value_or(std::min(limit, available_memory_bytes().value_or(unlimited)) / 2);
  return std::make_unique<ImageFolder>(name, Shape{size, size, channels},
                                       std::move(list.class_names), std::move(images),
                                       list.warnings, memory);
}

}  // namespace fluxion
