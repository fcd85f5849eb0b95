// fluxion-amd-report: what AMD's compiler makes of our shaders, on a machine without a card.
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "engine/error.h"
#include "tests/vulkan/amd/report.h"
#include "tests/vulkan/amd/step_shaders.h"

namespace fluxion::amd {

namespace {

constexpr int not_installed = 77;  // ctest takes it for skipped

struct Family {
  const char* name;   // that of the LLVM target, where cards share one
  const char* cards;  // an example
};
constexpr Family families[] = {{"polaris10", "RX 480, RX 580"},
                               {"vega10", "RX Vega 56, RX Vega 64"},
                               {"gfx1030", "RX 6800, RX 6900"},
                               {"gfx1100", "RX 7900"}};
const std::vector<std::string> all_nets{"dit28", "dit28 in bf16", "unet32", "index ops"};

struct Arguments {
  std::string family = "gfx1030", shader, page, net, save;
  std::int64_t kernel = -1;
  bool isa = false, section = false;
  std::uint32_t subgroup_size = 0;
};

std::vector<std::uint32_t> words_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("amd-report: can't read " + path);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::uint32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), words.size() * 4);
  return words;
}

int report_shader(const Arguments& options, const Compiler& compiler) {
  const std::vector<std::uint32_t> words = words_of(options.shader);
  Interface interface = interface_of(words);
  interface.subgroup_size = options.subgroup_size;
  const CompiledShader compiled = compiler.compile(words, interface);
  if (options.isa) std::cout << compiled.isa << "\n";
  std::cout << compiler.facts().name << ", " << compiler.facts().driver_info << "\n"
            << text_of(compiled);
  return 0;
}

// The shaders of one kernel of a step (those that no earlier kernel has).
int report_kernel(const Arguments& options, const Compiler& compiler) {
  const std::string wanted = "kernel " + std::to_string(options.kernel) + ":";
  int number = 0;
  for (const StepShader& used : shaders_of_step(options.net, compiler.facts()).shaders) {
    if (!used.first_kernel.starts_with(wanted)) continue;
    const vulkan_backend::Shader& shader = used.shader;
    if (!options.save.empty()) {
      const std::string path = options.save + "/kernel-" + std::to_string(options.kernel) + "-" +
                               std::to_string(number++) + ".spv";
      std::ofstream(path, std::ios::binary)
          .write(reinterpret_cast<const char*>(shader.words.data()),
                 static_cast<std::streamsize>(4 * shader.words.size()));
    }
    const CompiledShader compiled =
        compiler.compile(shader.words, {shader.bindings, shader.push_bytes, shader.subgroup_size});
    if (options.isa) std::cout << compiled.isa << "\n";
    std::cout << shader.name << ", " << used.dispatches << " times, " << used.first_kernel << "\n"
              << text_of(compiled) << "\n";
  }
  return 0;
}

// A family's part of the page, or its shaders one by one.
int report_steps(const Arguments& options, const Compiler& compiler) {
  std::vector<std::string> wrong;
  for (const std::string& net : all_nets) {
    if (!options.net.empty() && options.net != net) continue;
    const StepReport report = report_of(net, compiler);
    for (const std::string& offence : offences(report)) wrong.push_back(offence);
    if (options.section) {
      std::cout << "\n"
                << net << ": " << report.kernels << " kernels, " << report.dispatches
                << " dispatches, " << report.rows.size() << " shaders\n\n"
                << table_of_classes(report) << bars(report);
    } else {
      std::cout << net << "\n" << table_of_shaders(report);
    }
  }
  for (const std::string& offence : wrong) std::cerr << options.family << ": " << offence << "\n";
  return wrong.empty() ? 0 : 1;
}

// This program, run for one family: the driver reads the family once per process.
std::pair<std::string, int> section_of(const std::string& program, const std::string& family) {
  const std::string command = "'" + program + "' --section --family " + family;
  FILE* const pipe = popen(command.c_str(), "r");
  if (!pipe) throw Error("amd-report: can't run " + program);
  std::string text;
  char piece[4096];
  while (const std::size_t got = std::fread(piece, 1, sizeof piece, pipe)) text.append(piece, got);
  const int status = pclose(pipe);
  return {text, WIFEXITED(status) ? WEXITSTATUS(status) : 1};
}

std::string heading() {
  return R"(# What AMD's compiler makes of the kernels

Written by `fluxion-amd-report --page`; ctest compares. Where a change is meant, run ctest once with
`FLUXION_UPDATE_PINNED=1` and look at the difference.

Debian's RADV compiles shaders for a card that is not there (`tests/vulkan/amd`). These are all
shaders of a MeanFlow training step of the networks `dit28` (batch 64), in f32 and with the factors
of products in bf16, and `unet32` (batch 16), each different one counted once, and those of index
ops on usual sizes. A shader that spills registers or needs scratch memory fails the test. One
shader, one family, with its machine code:

    fluxion-amd-report --shader FILE.spv --family gfx1030 --isa

VGPRs are per lane. LDS is a workgroup's shared memory. Multiply-adds: their share of the
instructions of the inner loop (of the whole shader, where no loop has any). Loads and stores of
16 B: the share of the bytes of memory buffers that instructions of 16 bytes a lane move; loads that
are one for the whole subgroup don't count. Latency and cycles (inverse throughput) of a subgroup
are the compiler's estimates, in which loops count a few rounds. Below each table is how many
shaders miss a bar, and by how much at most. This compiler gives a shader at most 128 VGPRs on
gfx1100.
)";
}

// The first lines that differ: "- old", "+ new".
std::string first_difference(const std::string& old_text, const std::string& new_text) {
  std::istringstream old_lines(old_text), new_lines(new_text);
  std::string old_line, new_line;
  while (old_line == new_line && (old_lines || new_lines)) {
    if (!std::getline(old_lines, old_line)) old_line = "(the end)";
    if (!std::getline(new_lines, new_line)) new_line = "(the end)";
  }
  return "- " + old_line + "\n+ " + new_line + "\n";
}

int check_page(const Arguments& options, const std::string& program) {
  std::string written = heading();
  std::string driver;
  bool offends = false;
  for (const Family& family : families) {
    const auto [text, status] = section_of(program, family.name);
    if (status == not_installed) {
      std::cout << "RADV is not installed\n";
      return not_installed;
    }
    offends = offends || status != 0;
    written += "\n## " + std::string(family.name) + " (" + family.cards + ")\n\n" + text;
    driver = text.substr(0, text.find('\n'));
  }
  driver = driver.substr(driver.find(", ") + 2);
  std::stringstream committed;
  committed << std::ifstream(options.page).rdbuf();
  if (std::getenv("FLUXION_UPDATE_PINNED")) {
    std::ofstream(options.page) << written;
  } else if (committed.str().find(driver) == std::string::npos) {
    std::cout << "the page is of another driver than " << driver << ": not compared\n";
  } else if (committed.str() != written) {
    std::cerr << options.page << " is not what this program would write. It begins to differ at\n"
              << first_difference(committed.str(), written);
    return 1;
  }
  return offends ? 1 : 0;
}

int run(int argc, char** argv) {
  Arguments options;
  CLI::App app("What AMD's compiler makes of our shaders, on a machine without a card");
  app.add_option("--shader", options.shader, "Compile this SPIR-V module only");
  app.add_option("--family", options.family, "polaris10, vega10, gfx1030 or gfx1100");
  app.add_option("--subgroup-size", options.subgroup_size, "Require it of the shader");
  app.add_flag("--isa", options.isa, "Print the machine code of --shader or --kernel");
  app.add_option("--net", options.net,
                 "Only this: dit28, \"dit28 in bf16\", unet32 or \"index ops\"");
  app.add_option("--kernel", options.kernel, "Only the shaders of this kernel of --net");
  app.add_option("--save", options.save, "Write them into this folder, as SPIR-V");
  app.add_flag("--section", options.section, "One family's part of the page");
  app.add_option("--page", options.page, "Compare this page with what would be written");
  CLI11_PARSE(app, argc, argv);
  if (!options.page.empty())
    return check_page(options, std::filesystem::read_symlink("/proc/self/exe").string());
  const std::optional<Compiler> compiler = Compiler::make(options.family);
  if (!compiler) {
    std::cerr << "RADV is not installed\n";
    return not_installed;
  }
  if (!options.shader.empty()) return report_shader(options, *compiler);
  if (options.kernel >= 0) {
    if (options.net.empty()) throw Error("amd-report: --kernel wants --net");
    return report_kernel(options, *compiler);
  }
  if (options.section)
    std::cout << compiler->facts().name << ", " << compiler->facts().driver_info << "\n";
  return report_steps(options, *compiler);
}

}  // namespace

}  // namespace fluxion::amd

int main(int argc, char** argv) {
  try {
    return fluxion::amd::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
