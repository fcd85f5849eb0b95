#include "engine/show/memory_picture.h"

#include <algorithm>
#include <array>
#include <map>

#include "engine/plan/tape_edit.h"
#include "engine/show/markup.h"
#include "engine/show/program_picture.h"
#include "engine/show/svg.h"

namespace fluxion::show {

namespace {

std::size_t index_of(std::int64_t index) { return static_cast<std::size_t>(index); }

// Colours of blocks, in turn by the kernel that makes them.
constexpr std::array<std::string_view, 8> block_colours = {
    "#5b8fd6", "#6cb28e", "#d9a04e", "#b07cc6", "#d1736d", "#58aeb4", "#98a65a", "#8f8fcf"};

constexpr std::size_t most_key_lines = 10;

constexpr std::string_view memory_style =
    R"(  .panel { fill: #f8f9fb } .frame { stroke: #b4bac6; stroke-width: 1; fill: none } )"
    R"(.grid { stroke: #e3e6ec; stroke-width: 1 }
  .block { stroke: #ffffff; stroke-width: 1; fill-opacity: 0.85 } .name { font-size: 11px;)"
    R"( font-weight: 600; fill: #ffffff }
  .live { fill: #2f5fc4; fill-opacity: 0.28 } .peak { fill: none; stroke: #cf433d;)"
    R"( stroke-width: 1.6; stroke-dasharray: 5 3 }
  .peaktext { font-weight: 600; fill: #cf433d } .small { font-size: 11px }
)";
constexpr std::string_view dark_memory_style =
    R"(    .panel { fill: #1b1f27 } .frame { stroke: #4a5262 } .grid { stroke: #2b313c } )"
    R"(.block { stroke: #15181e } .live { fill: #8dbaff }
)";

}  // namespace

std::vector<MemoryBlock> memory_blocks(const Program& program) {
  std::vector<MemoryBlock> lives(program.buffers.size());
  std::vector<bool> written(program.buffers.size(), false);
  for (std::size_t k = 0; k < program.kernels.size(); ++k) {
    const auto kernel = static_cast<std::int32_t>(k);
    for (const plan::BufferId buffer : plan::writes(program.kernels[k])) {
      if (!written[buffer.index()]) lives[buffer.index()].first = kernel;
      written[buffer.index()] = true;
      lives[buffer.index()].last = kernel;
    }
    for (const plan::BufferId buffer : plan::reads(program.kernels[k]))
      lives[buffer.index()].last = kernel;
  }
  std::vector<MemoryBlock> blocks;
  std::multimap<std::pair<std::int64_t, std::int32_t>, std::size_t>
      ending;  // (offset, last kernel) -> block
  for (std::size_t b = 0; b < program.buffers.size(); ++b) {
    const BufferSlot& slot = program.buffers[b];
    if (slot.kind != BufferKind::temporary || !written[b] || slot.type.bytes() == 0) continue;
    MemoryBlock block = lives[b];
    block.buffer = static_cast<std::int32_t>(b);
    block.offset = slot.offset, block.bytes = static_cast<std::int64_t>(slot.type.bytes());
    ending.emplace(std::pair(block.offset, block.last), blocks.size());
    blocks.push_back(block);
  }
  for (MemoryBlock& block : blocks) {
    const auto [begin, end] = ending.equal_range({block.offset, block.first});
    for (auto found = begin; found != end; ++found) {
      MemoryBlock& older = blocks[found->second];
      if (older.first < block.first) block.donor = older.buffer, older.heir = block.buffer;
    }
  }
  return blocks;
}

std::vector<std::int64_t> live_bytes(const Program& program) {
  std::vector<std::int64_t> change(program.kernels.size() + 1, 0);
  for (const MemoryBlock& block : memory_blocks(program)) {
    change[index_of(block.first)] += block.bytes;
    change[index_of(block.last) + (block.heir >= 0 ? 0 : 1)] -= block.bytes;
  }
  std::vector<std::int64_t> live;
  std::int64_t now = 0;
  for (std::size_t k = 0; k < program.kernels.size(); ++k) live.push_back(now += change[k]);
  return live;
}

std::string memory_svg(const Program& program, const PictureLabels& labels) {
  const std::string& title = labels.title;
  const std::vector<std::string> names = buffer_names(program, labels);
  constexpr double left = 78, right = 24, arena_height = 320, live_height = 70, gap = 30;
  const std::vector<MemoryBlock> blocks = memory_blocks(program);
  const std::vector<std::int64_t> live = live_bytes(program);
  const auto kernels = static_cast<double>(std::max<std::size_t>(program.kernels.size(), 1));
  const double column = std::clamp(660 / kernels, 3.0, 96.0), width = column * kernels;
  const double top = title.empty() ? 52 : 74, live_bottom = top + live_height,
               arena_top = live_bottom + gap, arena_bottom = arena_top + arena_height;
  const std::int64_t peak = live.empty() ? 0 : *std::max_element(live.begin(), live.end());
  const auto arena = static_cast<double>(std::max<std::int64_t>(program.arena_bytes, 1));
  const double paper = std::max(left + width + right, left + text_width(title, 15) + right);

  std::string body;
  if (!title.empty()) body += svg_text(left, 26, title, "title");
  body += svg_text(left, top - 26, "live bytes", "label");
  body += svg_rect(left, top, width, live_height, "panel");
  for (std::size_t k = 0; k < live.size(); ++k) {
    const double height = live_height * static_cast<double>(live[k]) /
                          static_cast<double>(std::max<std::int64_t>(peak, 1));
    if (live[k] > 0)
      body += "<g><title>kernel " + std::to_string(k) + ": " +
              bytes_text(static_cast<std::uint64_t>(live[k])) + "</title>\n" +
              svg_rect(left + column * static_cast<double>(k), live_bottom - height, column, height,
                       "live") +
              "</g>\n";
  }
  body += svg_rect(left, top, width, live_height, "frame");
  body += svg_text(left - 8, live_bottom + 4, "0", "small", "text-anchor=\"end\"");
  if (peak > 0)
    body += svg_text(left - 8, top + 9, bytes_text(static_cast<std::uint64_t>(peak)), "small",
                     "text-anchor=\"end\"");

  body +=
      svg_text(left, arena_top - 9,
               "arena, " + bytes_text(static_cast<std::uint64_t>(program.arena_bytes)), "label");
  body += svg_rect(left, arena_top, width, arena_height, "panel");
  // Grid lines at quarters of the arena, and numbered ticks along the kernels.
  for (int quarter = 0; quarter <= 4; ++quarter) {
    const double y = arena_bottom - arena_height * quarter / 4;
    body += "<path class=\"grid\" d=\"M" + coordinate(left) + " " + coordinate(y) + "h" +
            coordinate(width) + "\"/>\n";
    body += svg_text(left - 8, y + 4,
                     bytes_text(static_cast<std::uint64_t>(program.arena_bytes) *
                                static_cast<std::uint64_t>(quarter) / 4),
                     "small", "text-anchor=\"end\"");
  }
  const std::size_t every = static_cast<std::size_t>(std::max(1.0, 26 / column));
  for (std::size_t k = 0; k < program.kernels.size(); k += every)
    body += svg_text(left + column * (static_cast<double>(k) + 0.5), arena_bottom + 16,
                     std::to_string(k), "small", "text-anchor=\"middle\"");
  body += svg_text(left + width / 2, arena_bottom + 36, "kernel", {}, "text-anchor=\"middle\"");

  std::vector<std::string> unnamed;
  for (const MemoryBlock& block : blocks) {
    // If a buffer takes over another's bytes, the hand-over is drawn in the middle of the kernel.
    const double from = block.first + (block.donor >= 0 ? 0.5 : 0.0),
                 to = block.last + (block.heir >= 0 ? 0.5 : 1.0);
    const double x = left + column * from, w = column * (to - from);
    const double h = arena_height * static_cast<double>(block.bytes) / arena;
    const double y = arena_bottom - arena_height * static_cast<double>(block.offset) / arena - h;
    const std::string number = "b" + std::to_string(block.buffer),
                      &name = names[index_of(block.buffer)],
                      bytes = bytes_text(static_cast<std::uint64_t>(block.bytes));
    std::string rect = svg_rect(x, y, w, h, "block", std::min({3.0, w / 4, h / 4}));
    rect.insert(rect.find("/>"),
                " fill=\"" +
                    std::string(block_colours[index_of(block.first) % block_colours.size()]) +
                    "\"");
    body += "<g><title>" + xml_escaped(number + ", " + name) + ": " +
            to_string(program.buffers[index_of(block.buffer)].type) + ", " + bytes + " at " +
            std::to_string(block.offset) + ", kernels " + std::to_string(block.first) + " to " +
            std::to_string(block.last) +
            (block.donor >= 0 ? ", in place of b" + std::to_string(block.donor) : "") +
            "</title>\n" + rect;
    // As much as there is room for; without the name the buffer is listed below.
    const std::string full = number + " " + name + " " + bytes, named = number + " " + name;
    const auto fits = [&](const std::string& text) {
      return h > 12 && w > text_width(text, 11) + 6;
    };
    const std::string* shown = fits(full)     ? &full
                               : fits(named)  ? &named
                               : fits(number) ? &number
                                              : nullptr;
    if (shown) body += svg_text(x + w / 2, y + h / 2 + 4, *shown, "name", "text-anchor=\"middle\"");
    if (shown != &full && shown != &named) unnamed.push_back(full);
    body += "</g>\n";
  }
  body += svg_rect(left, arena_top, width, arena_height, "frame");
  if (peak > 0) {
    const auto index =
        static_cast<double>(std::max_element(live.begin(), live.end()) - live.begin());
    body += svg_rect(left + column * index, top, column, arena_bottom - top, "peak");
    const std::string says =
        "peak " + bytes_text(static_cast<std::uint64_t>(peak)) + " in kernel " + coordinate(index);
    const bool on_left = index > kernels / 2;
    body += svg_text(left + column * (on_left ? index + 1 : index), top - 8, says, "peaktext",
                     on_left ? "text-anchor=\"end\"" : "");
  }
  double bottom = arena_bottom + 52;
  for (const std::string& line :
       wrapped(unnamed, static_cast<std::size_t>((paper - left) / 6.5), most_key_lines)) {
    body += svg_text(left, bottom + 6, line, "small");
    bottom += 15;
  }
  return svg_document(paper, unnamed.empty() ? bottom : bottom + 8, memory_style, dark_memory_style,
                      body);
}

std::string memory_text(const Program& program, const PictureLabels& labels) {
  const std::vector<std::string> names = buffer_names(program, labels);
  const std::vector<MemoryBlock> blocks = memory_blocks(program);
  const std::vector<std::int64_t> live = live_bytes(program);
  const std::int64_t peak = live.empty() ? 0 : *std::max_element(live.begin(), live.end());
  const auto padded = [](std::string text, std::size_t width) {
    text.resize(std::max(width, text.size()), ' ');
    return text;
  };
  std::string text = "arena " + bytes_text(static_cast<std::uint64_t>(program.arena_bytes)) +
                     ", peak of live bytes " + bytes_text(static_cast<std::uint64_t>(peak)) +
                     "\n\n" + padded("buffer", 8) + padded("offset", 12) + padded("bytes", 12) +
                     padded("kernels", 12) + padded("type", 22) + "  made by\n";
  for (const MemoryBlock& block : blocks)
    text += padded("b" + std::to_string(block.buffer), 8) +
            padded(std::to_string(block.offset), 12) + padded(std::to_string(block.bytes), 12) +
            padded(std::to_string(block.first) + " - " + std::to_string(block.last), 12) +
            padded(to_string(program.buffers[index_of(block.buffer)].type), 22) + "  " +
            names[index_of(block.buffer)] +
            (block.donor >= 0 ? ", in place of b" + std::to_string(block.donor) : "") + "\n";
  text += "\n" + padded("kernel", 8) + "live bytes\n";
  for (std::size_t k = 0; k < live.size(); ++k) {
    const auto bar = static_cast<std::size_t>(peak > 0 ? 50 * live[k] / peak : 0);
    text += padded(std::to_string(k), 8) + padded(std::to_string(live[k]), 12) +
            std::string(bar, '#') + (live[k] == peak && peak > 0 ? "  peak" : "") + "\n";
  }
  return text;
}

}  // namespace fluxion::show
