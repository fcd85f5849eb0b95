#include "engine/export/stored_sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>
#include <tuple>

#include "engine/error.h"
#include "engine/export/tagged_bytes.h"
#include "engine/number_text.h"
#include "engine/platform/file.h"
#include "engine/platform/memory_size.h"

namespace fluxion {

namespace {

constexpr FileFormat sampler_file{"sampler file", "sampler", "fluxsmpl", 1};
constexpr std::string_view sampler_sections[] = {"about", "weights", "forms",
                                                 "start", "steps",   "data"};
constexpr std::string_view optional_sections[] = {"guidance", "origin"};
// Weights begin at multiples of this in a file, as vector loads from a map like it.
constexpr std::size_t weight_alignment = 64;
constexpr std::size_t block_elements = 32, block_bytes = 2 + block_elements;
constexpr std::int64_t most_classes = 1 << 24;
constexpr double most_evaluations = 0x1p53;  // of a double that counts

struct EncodingName {
  WeightEncoding encoding;
  std::string_view name;
};
constexpr EncodingName encodings[] = {{WeightEncoding::f32, "f32"},
                                      {WeightEncoding::f16, "f16"},
                                      {WeightEncoding::bf16, "bf16"},
                                      {WeightEncoding::int8, "int8"}};

// As to_f32(Float16), without a call: files hold millions.
float half_at(const std::byte* bytes) {
  std::uint16_t half = 0;
  std::memcpy(&half, bytes, 2);
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16, rest = half & 0x7fffu;
  // Below 2^-14 the bits count steps of 2^-24; at 0x7c00 infinity begins, and NaNs.
  const auto small = std::bit_cast<std::uint32_t>(static_cast<float>(rest) * 0x1p-24f);
  const std::uint32_t bias = rest < 0x7c00 ? 127 - 15 : 255 - 31;
  return std::bit_cast<float>(sign | (rest < 0x400 ? small : (rest << 13) + (bias << 23)));
}

[[noreturn]] void fail(const StoredSampler& sampler, const std::string& what) {
  throw Error("sampler '" + sampler.name + "': " + what);
}

TensorType batch_of(const Shape& sample, std::int64_t batch) {
  return {with_leading_axis(batch, sample), DType::f32};
}

// What a graph takes after the weights, and what it returns.
struct FormTypes {
  std::vector<TensorType> inputs, outputs;
};

FormTypes types_of(const StoredSampler& sampler, const StoredForm& form, const TensorType& z,
                   std::int64_t batch, const std::string& what) {
  const StoredGraph graph = at_batch(form.graph, batch);
  const std::vector<TensorType>& inputs = graph.graph.inputs;
  const std::size_t weights = sampler.weights.size();
  bool fits = graph.inputs.size() > weights && inputs[weights] == z;
  for (std::size_t i = 0; fits && i < weights; ++i)
    fits = inputs[i] == TensorType(sampler.weights[i].shape, DType::f32);
  if (!fits)
    fail(sampler, what + " does not take what it is given: " + std::to_string(weights) +
                      " weights, then samples " + to_string(z));
  FormTypes types;
  for (std::size_t i = weights; i < graph.inputs.size(); ++i) types.inputs.push_back(inputs[i]);
  for (const plan::Value output : graph.graph.outputs)
    types.outputs.push_back(graph.graph.type(output));
  return types;
}

// Whether these inputs are z, this memory, so many numbers, the draws and the labels.
bool takes(const StoredSampler& sampler, const std::vector<TensorType>& inputs,
           std::span<const TensorType> memory, std::size_t numbers, std::size_t draws) {
  const TensorType& z = inputs.front();
  const std::size_t labels = sampler.classes > 0 ? 1 : 0;
  if (inputs.size() != 1 + memory.size() + numbers + draws + labels) return false;
  auto next = inputs.begin() + 1;
  if (!std::equal(memory.begin(), memory.end(), next)) return false;
  next += std::ssize(memory);
  const auto are = [&](std::size_t count, const TensorType& type) {
    const auto first = next;
    next += static_cast<std::ptrdiff_t>(count);
    return std::all_of(first, next, [&](const TensorType& each) { return each == type; });
  };
  return are(numbers, {{}, DType::f32}) && are(draws, z) &&
         are(labels, {Shape{z.shape[0]}, DType::i32});
}

void write_form(TaggedWriter& writer, const StoredForm& form) {
  writer.count(form.draws.size());
  for (const std::uint32_t draw : form.draws) writer.number(draw);
  const std::vector<std::byte> graph = serialise(form.graph.one);
  writer.number(static_cast<std::uint64_t>(graph.size()));
  writer.append(graph);
  writer.count(form.graph.growths.size());
  for (const auto& [integer, per_sample] : form.graph.growths) {
    writer.number(integer);
    writer.number(per_sample);
  }
}

StoredForm read_form(TaggedReader& reader) {
  StoredForm form;
  const std::uint32_t draws = reader.count("draws");
  for (std::uint32_t i = 0; i < draws; ++i) form.draws.push_back(reader.number<std::uint32_t>());
  form.graph.one = parse_graph(reader.take(reader.number<std::uint64_t>()));
  const std::uint32_t growths = reader.count("growing integers");
  for (std::uint32_t i = 0; i < growths; ++i) {
    Growth growth{reader.number<std::uint32_t>(), 0};
    reader.item(growth.per_sample);
    form.graph.growths.push_back(growth);
  }
  return form;
}

StoredSampler read_sampler(std::span<const std::byte> bytes) {
  const TaggedSections sections(sampler_file, bytes, sampler_sections, optional_sections);
  StoredSampler sampler;
  TaggedReader about = sections.reader("about");
  sampler.name = about.text();
  Dims sizes;
  about.item(sizes);
  sampler.sample_shape = Shape(std::move(sizes));
  about.item(sampler.classes);
  const std::uint32_t names = about.count("names of classes");
  for (std::uint32_t i = 0; i < names; ++i) sampler.class_names.push_back(about.text());
  const std::uint32_t usual = about.count("usual classes");
  for (std::uint32_t i = 0; i < usual; ++i)
    sampler.usual_classes.push_back(about.number<std::int32_t>());
  about.item(sampler.open_class);
  about.item(sampler.evaluations);
  about.item(sampler.scale);
  about.finish();

  TaggedReader weights = sections.reader("weights");
  const std::uint32_t weight_count = weights.count("weights");
  const std::span<const std::byte> data = sections.bytes("data");
  const auto data_at = static_cast<std::uint64_t>(data.data() - bytes.data());
  std::uint64_t end_of_last = 0;
  for (std::uint32_t i = 0; i < weight_count; ++i) {
    StoredWeight weight;
    weight.name = weights.text();
    const TensorType type = weights.type();
    if (type.dtype != DType::f32) weights.fail("a weight of " + std::string(to_string(type.dtype)));
    weight.shape = type.shape;
    const std::string_view encoding = weights.word();
    const auto known = std::find_if(std::begin(encodings), std::end(encodings),
                                    [&](const auto& each) { return each.name == encoding; });
    if (known == std::end(encodings))
      weights.fail("encoding " + TaggedReader::quoted(encoding) +
                   " is not one that this version knows");
    weight.encoding = known->encoding;
    const auto offset = weights.number<std::uint64_t>();
    const std::uint64_t length =
        encoded_bytes(static_cast<std::uint64_t>(weight.shape.elements()), weight.encoding);
    if (offset % weight_alignment != 0 || offset < data_at || offset - data_at > data.size() ||
        length > data.size() - (offset - data_at))
      weights.fail("weight " + TaggedReader::quoted(weight.name) +
                   " does not lie within section 'data', at a multiple of " +
                   std::to_string(weight_alignment) + " bytes");
    // A small file must not stand for many large weights.
    if (offset < end_of_last)
      weights.fail("weight " + TaggedReader::quoted(weight.name) + " begins before byte " +
                   std::to_string(end_of_last) + ", where the one before it ends");
    end_of_last = offset + length;
    weight.bytes =
        bytes.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(length));
    sampler.weights.push_back(std::move(weight));
  }
  weights.finish();

  const auto read_forms = [&](std::string_view section, std::vector<StoredForm>& forms) {
    TaggedReader reader = sections.reader(section);
    const std::uint32_t count = reader.count("forms");
    for (std::uint32_t i = 0; i < count; ++i) forms.push_back(read_form(reader));
    reader.finish();
  };
  read_forms("forms", sampler.forms);
  read_forms("start", sampler.start);

  TaggedReader steps = sections.reader("steps");
  const std::uint32_t step_count = steps.count("steps");
  for (std::uint32_t i = 0; i < step_count; ++i) {
    StoredStep step{steps.number<std::int32_t>(), {}};
    step.numbers.resize(steps.count("numbers"));
    for (double& number : step.numbers) steps.item(number);
    sampler.steps.push_back(std::move(step));
  }
  steps.finish();
  if (sections.contains("guidance")) {
    TaggedReader guidance = sections.reader("guidance");
    guidance.item(sampler.guidance.emplace());
    guidance.finish();
  }
  if (sections.contains("origin")) {
    TaggedReader origin = sections.reader("origin");
    sampler.origin = origin.text();
    origin.finish();
  }
  check(sampler);
  return sampler;
}

}  // namespace

std::string to_string(WeightEncoding encoding) {
  for (const EncodingName& each : encodings)
    if (each.encoding == encoding) return std::string(each.name);
  throw Error("weights: unknown encoding");
}

WeightEncoding weight_encoding_from(const std::string& name) {
  std::string known;
  for (const EncodingName& each : encodings) {
    if (each.name == name) return each.encoding;
    (known += known.empty() ? "" : ", ") += each.name;
  }
  throw FormatError("weights: encoding '" + name + "' is none of " + known);
}

std::uint64_t encoded_bytes(std::uint64_t elements, WeightEncoding encoding) {
  switch (encoding) {
    case WeightEncoding::f32:
      return 4 * elements;
    case WeightEncoding::f16:
    case WeightEncoding::bf16:
      return 2 * elements;
    case WeightEncoding::int8:
      return (elements + block_elements - 1) / block_elements * block_bytes;
  }
  throw Error("weights: unknown encoding");
}

std::vector<std::byte> encoded(std::span<const float> values, WeightEncoding encoding) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(encoded_bytes(values.size(), encoding)));
  const auto finite = [&](float value) {
    if (!std::isfinite(value))
      throw Error("weights: an element is not finite, or too large for " + to_string(encoding));
  };
  const auto put = [&](std::size_t at, std::uint16_t bits) {
    std::memcpy(bytes.data() + at, &bits, 2);
  };
  if (encoding == WeightEncoding::int8) {
    for (std::size_t first = 0, at = 0; first < values.size();
         first += block_elements, at += block_bytes) {
      const auto block = values.subspan(first, std::min(block_elements, values.size() - first));
      float largest = 0;
      for (const float value : block) {
        finite(value);
        largest = std::max(largest, std::abs(value));
      }
      const Float16 scale = to_f16(largest / 127);
      finite(to_f32(scale));
      put(at, scale.bits);
      const float step = to_f32(scale);
      for (std::size_t i = 0; i < block.size(); ++i) {
        const float level =
            step > 0 ? std::clamp(std::nearbyint(block[i] / step), -127.0f, 127.0f) : 0;
        bytes[at + 2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(level));
      }
    }
    return bytes;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    finite(values[i]);
    if (encoding == WeightEncoding::f32) {
      std::memcpy(bytes.data() + 4 * i, &values[i], 4);
    } else if (encoding == WeightEncoding::f16) {
      const Float16 half = to_f16(values[i]);
      finite(to_f32(half));
      put(2 * i, half.bits);
    } else {
      const BFloat16 half = to_bf16(values[i]);
      finite(to_f32(half));
      put(2 * i, half.bits);
    }
  }
  return bytes;
}

std::vector<float> StoredWeight::values() const {
  std::vector<float> result(static_cast<std::size_t>(shape.elements()));
  copy_to(result);
  return result;
}

void StoredWeight::copy_to(std::span<float> to) const {
  if (std::ssize(to) != shape.elements())
    throw Error("weights: " + std::to_string(shape.elements()) + " elements don't fill " +
                std::to_string(to.size()));
  if (to.empty()) return;
  switch (encoding) {
    case WeightEncoding::f32:
      std::memcpy(to.data(), bytes.data(), to.size() * sizeof(float));
      break;
    case WeightEncoding::f16:
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = half_at(bytes.data() + 2 * i);
      break;
    case WeightEncoding::bf16:
      for (std::size_t i = 0; i < to.size(); ++i) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, bytes.data() + 2 * i, 2);
        to[i] = std::bit_cast<float>(std::uint32_t{bits} << 16);
      }
      break;
    case WeightEncoding::int8:
      for (std::size_t i = 0; i < to.size(); ++i) {
        const std::byte* block = bytes.data() + i / block_elements * block_bytes;
        const auto level = static_cast<std::int8_t>(block[2 + i % block_elements]);
        to[i] = half_at(block) * static_cast<float>(level);
      }
      break;
  }
}

void check(const StoredSampler& sampler) {
  if (!is_representable(sampler.sample_shape.dims(), DType::f32) ||
      sampler.sample_shape.elements() == 0 ||
      !fits_memory(sampler.sample_shape.elements() * std::int64_t{sizeof(float)}))
    fail(sampler, "samples of shape " + to_string(sampler.sample_shape));
  if (sampler.classes < 0 || sampler.classes > most_classes)
    fail(sampler, std::to_string(sampler.classes) + " classes");
  if (!sampler.class_names.empty() && std::ssize(sampler.class_names) != sampler.classes)
    fail(sampler, std::to_string(sampler.class_names.size()) + " names for " +
                      std::to_string(sampler.classes) + " classes");
  for (const std::int32_t usual : sampler.usual_classes)
    if (usual < 0 || usual >= sampler.classes)
      fail(sampler, "class " + std::to_string(usual) + " of " + std::to_string(sampler.classes));
  // Numbers are computed with in single precision.
  if (!std::isfinite(static_cast<float>(sampler.scale))) fail(sampler, "its scale is not finite");
  if (!(sampler.evaluations >= 0 && sampler.evaluations <= most_evaluations))
    fail(sampler, "its number of network evaluations is " + number_text(sampler.evaluations));
  for (const StoredWeight& weight : sampler.weights)
    if (!is_representable(weight.shape.dims(), DType::f32) ||
        weight.bytes.size() !=
            encoded_bytes(static_cast<std::uint64_t>(weight.shape.elements()), weight.encoding))
      fail(sampler, "weight " + TaggedReader::quoted(weight.name) + ", " + to_string(weight.shape) +
                        " as " + to_string(weight.encoding) + ", has " +
                        std::to_string(weight.bytes.size()) + " bytes");
  if (sampler.start.size() > 1 || sampler.steps.empty())
    fail(sampler, "it has " + std::to_string(sampler.start.size()) + " starts and " +
                      std::to_string(sampler.steps.size()) + " steps");
  for (const StoredForm& start : sampler.start)
    if (!start.draws.empty()) fail(sampler, "its start draws noise");
  for (const StoredStep& step : sampler.steps)
    if (step.form < 0 || step.form >= std::ssize(sampler.forms))
      fail(sampler, "a step of form " + std::to_string(step.form) + " of " +
                        std::to_string(sampler.forms.size()));
  for (const StoredStep& step : sampler.steps)
    for (const double number : step.numbers)
      if (!std::isfinite(static_cast<float>(number)))
        fail(sampler, "a number of a step is not finite");
  if (sampler.guidance) {
    if (sampler.classes == 0 || !sampler.open_class)
      fail(sampler, "guidance between classes and none, and it has not both");
    for (const StoredStep& step : sampler.steps)
      if (step.numbers.empty() || step.numbers.back() != *sampler.guidance)
        fail(sampler, "the last number of a step is not its guidance");
  }
  // All that a file of `batched` needs. In others, what a slice with a step returns need not grow
  // evenly: whoever draws checks the size that it draws with.
  check(sampler, 1);
  check(sampler, 2);
}

void check(const StoredSampler& sampler, std::int64_t batch) {
  const TensorType z = batch_of(sampler.sample_shape, batch);
  std::vector<FormTypes> forms;
  for (std::size_t i = 0; i < sampler.forms.size(); ++i) {
    const std::string what = "form " + std::to_string(i);
    forms.push_back(types_of(sampler, sampler.forms[i], z, batch, what));
    if (forms.back().outputs.empty() || forms.back().outputs.front() != z)
      fail(sampler, what + " does not return samples, " + to_string(z));
  }
  std::vector<TensorType> started;
  if (!sampler.start.empty()) {
    FormTypes start = types_of(sampler, sampler.start.front(), z, batch, "its start");
    if (!takes(sampler, start.inputs, {}, 0, 0))
      fail(sampler, "its start does not take what it is given: the weights, samples and labels");
    started = std::move(start.outputs);
  }
  std::span<const TensorType> memory = started;
  // A file may have many steps, and much memory. (The form before, this one, how many numbers.)
  std::set<std::tuple<std::int64_t, std::int64_t, std::size_t>> seen;
  std::int64_t before = -1;
  for (std::size_t i = 0; i < sampler.steps.size(); ++i) {
    const StoredStep& step = sampler.steps[i];
    const auto form = static_cast<std::size_t>(step.form);
    if (seen.emplace(before, step.form, step.numbers.size()).second &&
        !takes(sampler, forms[form].inputs, memory, step.numbers.size(),
               sampler.forms[form].draws.size()))
      fail(sampler, "form " + std::to_string(form) + " of step " + std::to_string(i) +
                        " does not take what it is given: the weights, samples, " +
                        std::to_string(memory.size()) + " tensors of memory, " +
                        std::to_string(step.numbers.size()) + " numbers, draws and labels");
    memory = std::span(forms[form].outputs).subspan(1);
    before = step.form;
  }
}

std::vector<std::byte> serialise(const StoredSampler& sampler) {
  check(sampler);
  TaggedWriter about, forms, start, steps, guidance, origin;
  about.text(sampler.name);
  about.item(sampler.sample_shape.dims());
  about.item(sampler.classes);
  about.count(sampler.class_names.size());
  for (const std::string& name : sampler.class_names) about.text(name);
  about.count(sampler.usual_classes.size());
  for (const std::int32_t usual : sampler.usual_classes) about.number(usual);
  about.item(sampler.open_class);
  about.item(sampler.evaluations);
  about.item(sampler.scale);
  const auto write_forms = [](TaggedWriter& writer, const std::vector<StoredForm>& list) {
    writer.count(list.size());
    for (const StoredForm& form : list) write_form(writer, form);
  };
  write_forms(forms, sampler.forms);
  write_forms(start, sampler.start);
  steps.count(sampler.steps.size());
  for (const StoredStep& step : sampler.steps) {
    steps.number(step.form);
    steps.count(step.numbers.size());
    for (const double number : step.numbers) steps.item(number);
  }
  if (sampler.guidance) guidance.item(*sampler.guidance);
  origin.text(sampler.origin);

  // The list of weights is as long whatever their offsets, so a first one tells where the data are.
  const auto weights_at = [&](std::uint64_t offset) {
    TaggedWriter weights;
    weights.count(sampler.weights.size());
    for (const StoredWeight& weight : sampler.weights) {
      weights.text(weight.name);
      weights.type({weight.shape, DType::f32});
      weights.word(to_string(weight.encoding));
      weights.number(offset);
      offset += (weight.bytes.size() + weight_alignment - 1) / weight_alignment * weight_alignment;
    }
    return weights;
  };
  const auto before_data = [&](std::uint64_t offset) {
    TaggedWriter body;
    body.section("about", about);
    body.section("weights", weights_at(offset));
    body.section("forms", forms);
    body.section("start", start);
    body.section("steps", steps);
    if (sampler.guidance) body.section("guidance", guidance);
    if (!sampler.origin.empty()) body.section("origin", origin);
    return body;
  };
  const TaggedWriter empty;
  TaggedWriter probe = before_data(0);
  probe.section("data", empty);
  const std::size_t data_at = whole_file(sampler_file, probe.bytes).size(),
                    padding = (weight_alignment - data_at % weight_alignment) % weight_alignment;
  TaggedWriter body = before_data(data_at + padding), data;
  data.bytes.resize(padding);
  for (const StoredWeight& weight : sampler.weights) {
    data.append(weight.bytes);
    data.bytes.resize((data.bytes.size() - padding + weight_alignment - 1) / weight_alignment *
                          weight_alignment +
                      padding);
  }
  body.section("data", data);
  return whole_file(sampler_file, body.bytes);
}

namespace {

// A safetensors file: the length of its header in 8 bytes, then the header, in JSON.
bool is_model_file(std::span<const std::byte> bytes) {
  return bytes.size() > 8 && bytes[8] == std::byte{'{'} && bytes[7] == std::byte{0};
}

}  // namespace

StoredSampler parse_sampler(std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  if (!is_sampler_file(bytes) && is_model_file(bytes))
    throw FormatError(
        "this is a model file; `fluxion export --model FILE --out FILE.fxn` makes a generator of "
        "it");
  try {
    StoredSampler sampler = read_sampler(bytes);
    sampler.storage = std::move(owner);
    return sampler;
  } catch (const FormatError&) {
    throw;
  } catch (const Error& error) {
    throw FormatError(std::string("sampler file: ") + error.what());
  }
}

bool is_sampler_file(std::span<const std::byte> bytes) {
  const std::string_view magic = sampler_file.magic;
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

void save_sampler(const std::filesystem::path& path, const StoredSampler& sampler) {
  replace_file(path, serialise(sampler));
}

StoredSampler load_sampler(const std::filesystem::path& path) {
  const auto file = std::make_shared<const MappedFile>(path);
  try {
    StoredSampler sampler = parse_sampler(file->bytes(), file);
    file->check_whole();
    return sampler;
  } catch (const FormatError& error) {
    throw FormatError(path.string() + ": " + error.what());
  }
}

}  // namespace fluxion
