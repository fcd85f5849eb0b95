#include "engine/plan/memory.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <queue>

#include "engine/divide.h"
#include "engine/plan/tape_edit.h"
#include "engine/program/blocks.h"

namespace fluxion::plan {

namespace {

constexpr std::size_t many_lifetimes = 8192;

// Whether the tape reads `input` only at the same element where it writes `output`.
bool elementwise_between(const Tape& tape, BufferId input, BufferId output) {
  const auto store = std::find_if(tape.stores.begin(), tape.stores.end(),
                                  [&](const TapeStore& s) { return s.buffer == output.number; });
  if (store == tape.stores.end()) return false;
  // A streamed row's result may be stored while other pieces of the row are still to be read.
  if (tape.streaming && tape.instructions[static_cast<std::size_t>(store->value)].narrow)
    return false;
  bool found = false;
  for (const TapeLoad& load : tape.loads) {
    if (load.buffer != input.number) continue;
    if (!load.guards.empty() || load.address != store->address || load.dtype != store->dtype)
      return false;
    found = true;
  }
  return found;
}

bool maps_between(const Kernel& kernel, BufferId input, BufferId output) {
  const auto* map = std::get_if<TapeKernel>(&kernel);
  return map && elementwise_between(map->tape, input, output);
}

// Whether both can share memory. An epilogue runs once at each element, when all its products are
// added, so that it may write over what it adds to them, but not over what the product reads.
bool can_share(const Kernel& kernel, BufferId input, BufferId output) {
  const auto* product = std::get_if<ContractKernel>(&kernel);
  if (!product) return maps_between(kernel, input, output);
  return std::none_of(product->terms.begin(), product->terms.end(),
                      [&](const ContractTerm& term) {
                        return term.lhs.buffer == input.number || term.rhs.buffer == input.number;
                      }) &&
         elementwise_between(product->epilogue, input, output);
}

}  // namespace

bool can_overwrite(const Kernel& kernel, const std::set<BufferId>& inputs,
                   const std::set<BufferId>& outputs) {
  for (const BufferId written : writes(kernel)) {
    if (!outputs.contains(written)) continue;
    for (const BufferId input : inputs)
      if (maps_between(kernel, input, written)) return true;
  }
  return false;
}

Indexed<BufferId, BufferId> take_over(const Kernels& kernels, const Traffic& traffic,
                                      const Slots& slots, const Order& order,
                                      const Indexed<KernelId, bool>& commits,
                                      const std::set<BufferId>& donated) {
  Indexed<BufferId, BufferId> taken(slots.size());
  std::set<BufferId> given;
  for (const BufferId output : slots.ids()) {
    const KernelId writer = traffic.writer[output];
    if (slots[output].kind != BufferKind::output || !writer || !commits[writer]) continue;
    const auto fits = [&](BufferId input) {
      const auto& readers = traffic.readers[input];
      return !given.contains(input) && slots[input].type == slots[output].type &&
             maps_between(kernels[writer].kernel, input, output) &&
             std::all_of(readers.begin(), readers.end(), [&](KernelId reader) {
               return reader == writer || order.place[reader] < order.place[writer];
             });
    };
    const auto input = std::find_if(donated.begin(), donated.end(), fits);
    if (input == donated.end()) continue;
    given.insert(*input);
    taken[output] = *input;
  }
  return taken;
}

std::int64_t place_by_size(std::vector<Lifetime>& lifetimes, std::int64_t block) {
  std::vector<std::size_t> by_size(lifetimes.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });
  std::vector<Lifetime> placed;
  std::int64_t bytes = 0;
  for (const std::size_t i : by_size) {
    Lifetime& life = lifetimes[i];
    std::vector<std::pair<std::int64_t, std::int64_t>> taken;
    for (const Lifetime& other : placed)
      if (other.from <= life.to && life.from <= other.to)
        taken.push_back({other.offset, other.offset + other.bytes});
    std::sort(taken.begin(), taken.end());
    for (const auto& [begin, end] : taken) {
      if (life.offset + life.bytes <= begin) break;
      life.offset = within_block(std::max(life.offset, end), life.bytes, block);
    }
    bytes = std::max(bytes, life.offset + life.bytes);
    placed.push_back(life);
  }
  return bytes;
}

std::int64_t place_by_time(std::vector<Lifetime>& lifetimes, std::int64_t block) {
  std::vector<Lifetime*> by_time;
  for (Lifetime& life : lifetimes) by_time.push_back(&life);
  std::stable_sort(by_time.begin(), by_time.end(),
                   [](const Lifetime* a, const Lifetime* b) { return a->from < b->from; });
  const auto later = [](const Lifetime* a, const Lifetime* b) { return a->to > b->to; };
  std::priority_queue<Lifetime*, std::vector<Lifetime*>, decltype(later)> live(later);
  std::map<std::int64_t, std::int64_t> free;  // begin -> end
  // The same ranges as (end - begin, begin).
  std::set<std::pair<std::int64_t, std::int64_t>> by_size;
  std::int64_t bytes = 0;
  const auto take = [&](std::map<std::int64_t, std::int64_t>::iterator range) {
    const auto [begin, end] = *range;
    by_size.erase({end - begin, begin});
    free.erase(range);
    return std::pair(begin, end);
  };
  const auto give = [&](std::int64_t begin, std::int64_t end) {
    if (const auto next = free.find(end); next != free.end()) end = take(next).second;
    if (auto next = free.lower_bound(begin);
        next != free.begin() && std::prev(next)->second == begin)
      begin = take(std::prev(next)).first;
    free[begin] = end;
    by_size.insert({end - begin, begin});
  };
  for (Lifetime* life : by_time) {
    while (!live.empty() && live.top()->to < life->from) {
      const Lifetime& dead = *live.top();
      if (dead.bytes > 0) give(dead.offset, dead.offset + dead.bytes);
      live.pop();
    }
    auto best = life->bytes > 0 ? by_size.lower_bound({life->bytes, 0}) : by_size.end();
    while (best != by_size.end() && within_block(best->second, life->bytes, block) + life->bytes >
                                        best->second + best->first)
      ++best;
    if (best != by_size.end()) {
      const auto [begin, end] = take(free.find(best->second));
      life->offset = within_block(begin, life->bytes, block);
      if (begin < life->offset) give(begin, life->offset);
      if (life->offset + life->bytes < end) give(life->offset + life->bytes, end);
    } else {
      life->offset = within_block(bytes, life->bytes, block);
      if (bytes < life->offset) give(bytes, life->offset);
      bytes = life->offset + life->bytes;
    }
    live.push(life);
  }
  return bytes;
}

Arena place_temporaries(const Kernels& kernels, const Traffic& traffic, const Slots& slots,
                        const Order& order, const KernelLimits& limits, const Storage& storage) {
  const auto aligned_bytes = [&](const BufferSlot& slot) {
    return round_up(static_cast<std::int64_t>(bytes_of(slot.type, storage)), limits.alignment);
  };
  const auto last_read = [&](BufferId buffer) {
    const KernelId writer = traffic.writer[buffer];
    std::int32_t last = writer ? order.place[writer] : -1;
    for (const KernelId reader : traffic.readers[buffer])
      last = std::max(last, order.place[reader]);
    return last;
  };
  const auto temporary = [&](BufferId buffer) {
    return slots[buffer].kind == BufferKind::temporary;
  };
  Indexed<BufferId, BufferId> shares(slots.size());  // the buffer whose memory each one uses
  std::map<BufferId, Lifetime> lives;                // of buffers with their own memory
  for (const KernelId k : order.kernels) {
    const Kernel& kernel = kernels[k].kernel;
    const std::int32_t now = order.place[k];
    std::vector<BufferId> inputs = reads(kernel);
    for (const BufferId out : writes(kernel)) {
      if (!temporary(out)) continue;
      const auto reused = std::find_if(inputs.begin(), inputs.end(), [&](BufferId in) {
        return temporary(in) && last_read(in) == now &&
               bytes_of(slots[in].type, storage) == bytes_of(slots[out].type, storage) &&
               can_share(kernel, in, out);
      });
      if (reused == inputs.end()) {
        shares[out] = out;
        lives[out] = {now, last_read(out), aligned_bytes(slots[out])};
      } else {
        shares[out] = shares[*reused];
        inputs.erase(reused);
        lives[shares[out]].to = std::max(lives[shares[out]].to, last_read(out));
      }
    }
  }
  std::vector<Lifetime> lifetimes;
  for (const auto& [buffer, life] : lives) lifetimes.push_back(life);
  Arena arena{Indexed<BufferId, std::int64_t>(slots.size())};
  arena.bytes = lifetimes.size() > many_lifetimes ? place_by_time(lifetimes, limits.block_bytes)
                                                  : place_by_size(lifetimes, limits.block_bytes);
  auto life = lifetimes.begin();
  for (const auto& [buffer, unplaced] : lives) arena.offsets[buffer] = (life++)->offset;
  for (const BufferId buffer : slots.ids())
    if (shares[buffer]) arena.offsets[buffer] = arena.offsets[shares[buffer]];
  return arena;
}

}  // namespace fluxion::plan
