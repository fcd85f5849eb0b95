// What AMD's compiler makes of every shader of the training steps, as text.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/vulkan/amd/compiler.h"
#include "tests/vulkan/amd/isa.h"

namespace fluxion::amd {

struct ShaderRow {
  std::string kernel_class;  // vulkan_backend::Shader::name
  std::string first_kernel;
  std::int64_t dispatches = 0;
  std::uint32_t invocations = 0;  // of a workgroup
  Statistics statistics;
  CodeReport code;
};

struct StepReport {
  std::string net;
  std::int64_t kernels = 0, dispatches = 0;
  std::vector<ShaderRow> rows;
  std::vector<std::string> failures;  // kernels without a shader, and shaders that don't compile
};
// `net`: as of shaders_of_step(), or "index ops".
StepReport report_of(const std::string& net, const Compiler& compiler);

// What a change must not bring: failures, spills and scratch. One line each.
std::vector<std::string> offences(const StepReport& report);

// Markdown, a row per class of kernels.
std::string table_of_classes(const StepReport& report);
// How many shaders miss what is aimed at, and by how much at most: a list in markdown.
std::string bars(const StepReport& report);
// A line per shader, the one with most cycles first.
std::string table_of_shaders(const StepReport& report);
// All that is known of one shader.
std::string text_of(const CompiledShader& shader);

}  // namespace fluxion::amd
