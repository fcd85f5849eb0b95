// What cold_start.c does, with ggml's CPU backend: the DiT of cold_start_peers.py as a graph of
// ggml's ops, whose weights are read where their GGUF file is mapped. cold_start.sh builds and runs
// it.
//
//   cold_start_ggml NETWORK.gguf THREADS [CALLS | NOISE IMAGE]
//
// With NOISE and IMAGE, files of floats, it draws IMAGE from NOISE.
//
// Shapes in comments are as in PyTorch, the last axis contiguous; ggml names axes from the last.
#include <fcntl.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int image_side = 28, patch = 4, grid = image_side / patch, tokens = grid * grid;
constexpr int width = 128, depth = 6, heads = 4, head_width = width / heads, frequencies = 256;
constexpr int attention_tile = 64;
constexpr int label = 3, many = 64;
constexpr std::size_t pixels = image_side * image_side;

double now() {  // the monotonic clock's, on Linux
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void must(bool done, const std::string& what) {
  if (!done) throw std::runtime_error(what);
}

// Room for `count` tensors without their elements.
ggml_context_ptr context_of(std::size_t count) {
  const std::size_t graph = ggml_graph_overhead_custom(count, false);
  return ggml_context_ptr(ggml_init({count * ggml_tensor_overhead() + graph, nullptr, true}));
}

class Weights {
 public:
  explicit Weights(const char* path) {
    ggml_context* context = nullptr;
    const gguf_context_ptr file(gguf_init_from_file(path, {.no_alloc = true, .ctx = &context}));
    context_.reset(context);
    must(file != nullptr, path + std::string(" is no GGUF file"));

    const int descriptor = open(path, O_RDONLY);
    struct stat status {};
    must(descriptor >= 0 && fstat(descriptor, &status) == 0, path);
    const auto size = static_cast<std::size_t>(status.st_size);
    // Unmapped when the process ends.
    void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, descriptor, 0);
    close(descriptor);
    must(mapped != MAP_FAILED, path);
    buffer_.reset(ggml_backend_cpu_buffer_from_ptr(mapped, size));
    char* data = static_cast<char*>(mapped) + gguf_get_data_offset(file.get());
    for (std::int64_t i = 0; i < gguf_get_n_tensors(file.get()); ++i) {
      ggml_tensor* tensor = ggml_get_tensor(context, gguf_get_tensor_name(file.get(), i));
      char* elements = data + gguf_get_tensor_offset(file.get(), i);
      must(ggml_backend_tensor_alloc(buffer_.get(), tensor, elements) == GGML_STATUS_SUCCESS, path);
    }
  }

  ggml_tensor* operator[](const std::string& name) const {
    ggml_tensor* tensor = ggml_get_tensor(context_.get(), name.c_str());
    must(tensor != nullptr, "the file has no " + name);
    return tensor;
  }

 private:
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
};

struct Inputs {
  ggml_tensor *noise, *t, *r, *labels, *one;
};

// The network's layers, each of which adds its ops to the context.
struct Network {
  ggml_context* context;
  const Weights& weights;
  std::int64_t batch;

  ggml_tensor* linear(const std::string& name, ggml_tensor* x) const {
    ggml_tensor* product = ggml_mul_mat(context, weights[name + ".weight"], x);
    return ggml_add(context, product, weights[name + ".bias"]);
  }

  // [batch] -> [batch, width]
  ggml_tensor* time_embedding(const std::string& name, ggml_tensor* t) const {
    ggml_tensor* waves =
        ggml_timestep_embedding(context, ggml_scale(context, t, 1000), frequencies, 10000);
    return linear(name + "2", ggml_silu(context, linear(name + "1", waves)));
  }

  // Part `index` of [batch, parts * width], as [batch, 1, width].
  ggml_tensor* part(ggml_tensor* parts, int index) const {
    return ggml_view_3d(context, parts, width, 1, batch, parts->nb[1], parts->nb[1],
                        sizeof(float) * width * static_cast<std::size_t>(index));
  }

  // Parts `first` and the next are shift and scale.
  ggml_tensor* modulated_norm(ggml_tensor* x, ggml_tensor* parts, int first,
                              ggml_tensor* one) const {
    ggml_tensor* scale = ggml_add(context, part(parts, first + 1), one);
    ggml_tensor* scaled = ggml_mul(context, ggml_norm(context, x, 1e-6f), scale);
    return ggml_add(context, scaled, part(parts, first));
  }

  // Queries, keys or values, for `index` 0 to 2: [batch, tokens, 3 * width] as [batch, heads,
  // tokens, head_width].
  ggml_tensor* of_heads(ggml_tensor* qkv, int index) const {
    ggml_tensor* chosen = ggml_view_4d(context, qkv, head_width, heads, tokens, batch,
                                       sizeof(float) * head_width, qkv->nb[1], qkv->nb[2],
                                       sizeof(float) * width * static_cast<std::size_t>(index));
    return ggml_permute(context, chosen, 0, 2, 1, 3);
  }

  ggml_tensor* attention(const std::string& name, ggml_tensor* x) const {
    ggml_tensor* qkv = linear(name + ".qkv", x);
    const float scale = 1 / std::sqrt(static_cast<float>(head_width));
    // ggml tiles attention from 64 queries on (its GGML_FA_TILE_Q), and fewer are much slower: the
    // queries are padded, and what the padding gave is dropped.
    ggml_tensor* queries = ggml_pad(context, of_heads(qkv, 0), 0, attention_tile - tokens, 0, 0);
    ggml_tensor* mixed = ggml_flash_attn_ext(context, queries, of_heads(qkv, 1), of_heads(qkv, 2),
                                             nullptr, scale, 0, 0);
    ggml_flash_attn_ext_set_prec(mixed, GGML_PREC_F32);
    mixed = ggml_cont(context, ggml_view_4d(context, mixed, head_width, heads, tokens, batch,
                                            mixed->nb[1], mixed->nb[2], mixed->nb[3], 0));
    return linear(name + ".proj", ggml_reshape_3d(context, mixed, width, tokens, batch));
  }

  ggml_tensor* block(const std::string& name, ggml_tensor* x, ggml_tensor* condition,
                     ggml_tensor* one) const {
    ggml_tensor* parts = linear(name + ".ada", condition);
    ggml_tensor* attended = attention(name + ".attn", modulated_norm(x, parts, 0, one));
    x = ggml_add(context, x, ggml_mul(context, attended, part(parts, 2)));
    ggml_tensor* hidden = linear(name + ".fc1", modulated_norm(x, parts, 3, one));
    ggml_tensor* out = linear(name + ".fc2", ggml_gelu_erf(context, hidden));
    return ggml_add(context, x, ggml_mul(context, out, part(parts, 5)));
  }

  // Swaps the inner two of [batch * grid, a, b, patch].
  ggml_tensor* swapped(ggml_tensor* x, int a, int b) const {
    x = ggml_reshape_4d(context, x, patch, b, a, batch * grid);
    return ggml_cont(context, ggml_permute(context, x, 0, 2, 1, 3));
  }

  // [batch, 28, 28] -> [batch, 28, 28]
  ggml_tensor* velocity(const Inputs& inputs) const {
    ggml_tensor* x =
        ggml_reshape_3d(context, swapped(inputs.noise, patch, grid), patch * patch, tokens, batch);
    x = ggml_add(context, linear("patch", x), weights["pos"]);
    ggml_tensor* condition =
        ggml_add(context, time_embedding("time.t", inputs.t),
                 time_embedding("time.r", ggml_sub(context, inputs.t, inputs.r)));
    condition = ggml_add(context, condition,
                         ggml_get_rows(context, weights["label.weight"], inputs.labels));
    condition = ggml_silu(context, condition);
    for (int i = 0; i < depth; ++i)
      x = block("blocks." + std::to_string(i), x, condition, inputs.one);
    x = linear("out", modulated_norm(x, linear("adaf", condition), 0, inputs.one));
    return ggml_reshape_3d(context, swapped(x, grid, patch), image_side, image_side, batch);
  }
};

// Draws `count` images a call; graph, memory and what is the same in all calls are kept.
class Generator {
 public:
  Generator(ggml_backend_t backend, const Weights& weights, int count)
      : backend_(backend),
        inputs_context_(context_of(5)),
        context_(context_of(GGML_DEFAULT_GRAPH_SIZE)) {
    ggml_context* own = inputs_context_.get();
    const auto floats = [&] { return ggml_new_tensor_1d(own, GGML_TYPE_F32, count); };
    inputs_ = {.noise = ggml_new_tensor_3d(own, GGML_TYPE_F32, image_side, image_side, count),
               .t = floats(),
               .r = floats(),
               .labels = ggml_new_tensor_1d(own, GGML_TYPE_I32, count),
               .one = ggml_new_tensor_1d(own, GGML_TYPE_F32, 1)};
    inputs_buffer_.reset(ggml_backend_alloc_ctx_tensors(own, backend));
    must(inputs_buffer_ != nullptr, "memory");
    ggml_set_f32(inputs_.t, 1);
    ggml_set_f32(inputs_.r, 0);
    ggml_set_i32(inputs_.labels, label);
    ggml_set_f32(inputs_.one, 1);

    const Network network{context_.get(), weights, count};
    images_ = ggml_sub(context_.get(), inputs_.noise, network.velocity(inputs_));
    ggml_set_output(images_);
    graph_ = ggml_new_graph(context_.get());
    ggml_build_forward_expand(graph_, images_);
    allocator_.reset(ggml_gallocr_new(ggml_backend_get_default_buffer_type(backend)));
    must(ggml_gallocr_alloc_graph(allocator_.get(), graph_), "memory");
  }

  void draw(std::span<const float> noise, std::span<float> images) {
    ggml_backend_tensor_set(inputs_.noise, noise.data(), 0, noise.size_bytes());
    must(ggml_backend_graph_compute(backend_, graph_) == GGML_STATUS_SUCCESS, "draw");
    ggml_backend_tensor_get(images_, images.data(), 0, images.size_bytes());
  }

 private:
  ggml_backend_t backend_;
  ggml_context_ptr inputs_context_, context_;
  ggml_backend_buffer_ptr inputs_buffer_;
  ggml_gallocr_ptr allocator_;
  Inputs inputs_{};
  ggml_tensor* images_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
};

void draw_file(Generator& generator, const char* noise_path, const char* image_path) {
  std::vector<float> values(pixels);
  const auto bytes = static_cast<std::streamsize>(sizeof(float) * pixels);
  must(bool(std::ifstream(noise_path, std::ios::binary)
                .read(reinterpret_cast<char*>(values.data()), bytes)),
       noise_path);
  generator.draw(values, values);
  must(bool(std::ofstream(image_path, std::ios::binary)
                .write(reinterpret_cast<const char*>(values.data()), bytes)),
       image_path);
}

}  // namespace

int main(int argc, char** argv) try {
  const double begun = now();
  if (argc < 3 || argc > 5) {
    std::fprintf(stderr, "usage: cold_start_ggml NETWORK.gguf THREADS [CALLS | NOISE IMAGE]\n");
    return 2;
  }
  const ggml_backend_ptr backend(ggml_backend_cpu_init());
  ggml_backend_cpu_set_n_threads(backend.get(), std::stoi(argv[2]));
  const Weights weights(argv[1]);
  const double opened = now();
  std::mt19937 bits(7);
  std::normal_distribution<float> normal;
  std::vector<float> images(many * pixels);
  const auto draw = [&](Generator& generator, int count) {
    const std::span<float> values(images.data(), static_cast<std::size_t>(count) * pixels);
    for (float& value : values) value = normal(bits);
    generator.draw(values, values);
  };
  Generator one(backend.get(), weights, 1);
  if (argc == 5) {
    draw_file(one, argv[3], argv[4]);
    return 0;
  }
  draw(one, 1);
  std::printf("{\"begun\": %.6f, \"opened\": %.6f, \"image\": %.6f", begun, opened, now());
  const int calls = argc == 4 ? std::stoi(argv[3]) : 0;
  for (const int count : {1, many}) {
    if (!calls) break;
    Generator generator(backend.get(), weights, count);
    draw(generator, count);
    std::printf(", \"batch %d\": [", count);
    for (int i = 0; i < calls; ++i) {
      const double start = now();
      draw(generator, count);
      std::printf("%s%.4f", i ? ", " : "", 1e3 * (now() - start));
    }
    std::printf("]");
  }
  std::printf("}\n");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "cold_start_ggml: %s\n", error.what());
  return 1;
}
