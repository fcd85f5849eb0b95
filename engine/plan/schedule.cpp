// Order and memory: when each kernel runs and where each temporary lies.
#include "engine/plan/schedule.h"

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <set>

namespace fluxion::plan {

namespace {

// Whether the kernel reads `input` only at the very element where it writes `output`, so that one
// memory can serve both.
bool elementwise_between(const Kernel& kernel, std::int32_t input, std::int32_t output) {
  const auto* map = std::get_if<TapeKernel>(&kernel);
  if (!map) return false;
  const Tape& tape = map->tape;
  const auto store = std::find_if(tape.stores.begin(), tape.stores.end(),
                                  [&](const TapeStore& s) { return s.buffer == output; });
  if (store == tape.stores.end()) return false;
  // The result of a streamed row is stored when other pieces of the row may still be read.
  if (tape.streaming && tape.instructions[static_cast<std::size_t>(store->value)].narrow)
    return false;
  bool found = false;
  for (const TapeLoad& load : tape.loads) {
    if (load.buffer != input) continue;
    if (!load.guards.empty() || load.address != store->address || load.dtype != store->dtype)
      return false;
    found = true;
  }
  return found;
}

void renumber(Tape& tape, const std::vector<std::int32_t>& numbers) {
  for (TapeLoad& load : tape.loads) load.buffer = numbers[static_cast<std::size_t>(load.buffer)];
  for (TapeStore& store : tape.stores)
    store.buffer = numbers[static_cast<std::size_t>(store.buffer)];
}

void renumber(Kernel& kernel, const std::vector<std::int32_t>& numbers) {
  if (auto* map = std::get_if<TapeKernel>(&kernel)) renumber(map->tape, numbers);
  if (auto* contract = std::get_if<ContractKernel>(&kernel)) {
    for (ContractTerm& term : contract->terms)
      for (ContractOperand* operand : {&term.lhs, &term.rhs})
        operand->buffer = numbers[static_cast<std::size_t>(operand->buffer)];
    renumber(contract->epilogue, numbers);
  }
  if (auto* op = std::get_if<OpKernel>(&kernel)) {
    for (std::int32_t& buffer : op->inputs) buffer = numbers[static_cast<std::size_t>(buffer)];
    for (std::int32_t& buffer : op->outputs) buffer = numbers[static_cast<std::size_t>(buffer)];
    for (ContractOperand& view : op->views)
      view.buffer = numbers[static_cast<std::size_t>(view.buffer)];
  }
}

// `after` moves nothing: whoever reads its result reads x itself, once the token is known. Takes
// these kernels away - but those whose result is an output, which are copies - and returns, per
// kernel, the buffers that it waits for beside those that it reads.
std::vector<std::set<std::int32_t>> dissolve_barriers(std::vector<LoweredKernel>& kernels,
                                                      const std::vector<BufferSlot>& slots) {
  const auto barrier = [&](const LoweredKernel& kernel) {
    const auto* op = std::get_if<OpKernel>(&kernel.kernel);
    return op && op->op == Op::after &&
                   slots[static_cast<std::size_t>(op->outputs[0])].kind == BufferKind::temporary
               ? op
               : nullptr;
  };
  std::vector<std::int32_t> stands_for(slots.size());
  for (std::size_t b = 0; b < slots.size(); ++b) stands_for[b] = static_cast<std::int32_t>(b);
  std::map<std::int32_t, std::set<std::int32_t>> tokens;  // of barriers' results
  // In the order of the graph, so that what a barrier reads is settled before.
  std::vector<std::pair<std::int32_t, const OpKernel*>> barriers;
  for (const LoweredKernel& kernel : kernels)
    if (const OpKernel* op = barrier(kernel)) barriers.push_back({kernel.position, op});
  if (barriers.empty()) return std::vector<std::set<std::int32_t>>(kernels.size());
  std::sort(barriers.begin(), barriers.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [position, op] : barriers) {
    std::set<std::int32_t>& waits = tokens[op->outputs[0]];
    for (const std::int32_t input : op->inputs)
      if (const auto found = tokens.find(input); found != tokens.end() && input != op->outputs[0])
        waits.insert(found->second.begin(), found->second.end());
    waits.insert(stands_for[static_cast<std::size_t>(op->inputs[1])]);
    stands_for[static_cast<std::size_t>(op->outputs[0])] =
        stands_for[static_cast<std::size_t>(op->inputs[0])];
  }
  std::erase_if(kernels, [&](const LoweredKernel& kernel) { return barrier(kernel) != nullptr; });
  std::vector<std::set<std::int32_t>> waits(kernels.size());
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    for (const std::int32_t buffer : reads(kernels[k].kernel))
      if (const auto found = tokens.find(buffer); found != tokens.end())
        waits[k].insert(found->second.begin(), found->second.end());
    renumber(kernels[k].kernel, stands_for);
  }
  return waits;
}

struct Lifetime {
  std::int32_t buffer;
  std::int32_t from, to;  // kernels, inclusive
  std::int64_t bytes;
};

// Offsets for lifetimes: the largest first, each at the lowest place free for all of its life.
std::int64_t place_by_size(std::vector<Lifetime> lifetimes, std::vector<std::int64_t>& offsets) {
  std::sort(lifetimes.begin(), lifetimes.end(), [](const Lifetime& a, const Lifetime& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.buffer < b.buffer;
  });
  std::vector<Lifetime> placed;
  std::int64_t arena = 0;
  for (const Lifetime& life : lifetimes) {
    std::vector<std::pair<std::int64_t, std::int64_t>> taken;
    for (const Lifetime& other : placed)
      if (other.from <= life.to && life.from <= other.to)
        taken.push_back({offsets[static_cast<std::size_t>(other.buffer)],
                         offsets[static_cast<std::size_t>(other.buffer)] + other.bytes});
    std::sort(taken.begin(), taken.end());
    std::int64_t offset = 0;
    for (const auto& [begin, end] : taken) {
      if (offset + life.bytes <= begin) break;
      offset = std::max(offset, end);
    }
    offsets[static_cast<std::size_t>(life.buffer)] = offset;
    arena = std::max(arena, offset + life.bytes);
    placed.push_back(life);
  }
  return arena;
}

// The same in order of time with a list of free ranges: a little larger, but not quadratic. For
// very long programs.
std::int64_t place_by_time(std::vector<Lifetime> lifetimes, std::vector<std::int64_t>& offsets) {
  std::sort(lifetimes.begin(), lifetimes.end(),
            [](const Lifetime& a, const Lifetime& b) { return a.from < b.from; });
  const auto later = [](const Lifetime& a, const Lifetime& b) { return a.to > b.to; };
  std::priority_queue<Lifetime, std::vector<Lifetime>, decltype(later)> live(later);
  std::map<std::int64_t, std::int64_t> free;  // begin -> end
  std::set<std::pair<std::int64_t, std::int64_t>>
      by_size;  // (end - begin, begin) of the same ranges
  std::int64_t arena = 0;
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
  for (const Lifetime& life : lifetimes) {
    while (!live.empty() && live.top().to < life.from) {
      const std::int64_t offset = offsets[static_cast<std::size_t>(live.top().buffer)];
      if (live.top().bytes > 0) give(offset, offset + live.top().bytes);
      live.pop();
    }
    std::int64_t& offset = offsets[static_cast<std::size_t>(life.buffer)];
    if (const auto best = by_size.lower_bound({life.bytes, 0});
        best != by_size.end() && life.bytes > 0) {
      const auto [begin, end] = take(free.find(best->second));
      offset = begin;
      if (begin + life.bytes < end) give(begin + life.bytes, end);
    } else {
      offset = arena;
      arena += life.bytes;
    }
    live.push(life);
  }
  return arena;
}

constexpr std::size_t many_lifetimes = 8192;

}  // namespace

bool can_overwrite(const Kernel& kernel, const std::set<std::int32_t>& inputs,
                   const std::set<std::int32_t>& outputs) {
  for (const std::int32_t written : writes(kernel)) {
    if (!outputs.contains(written)) continue;
    for (const std::int32_t input : inputs)
      if (elementwise_between(kernel, input, written)) return true;
  }
  return false;
}

void schedule(std::vector<LoweredKernel> kernels, std::vector<BufferSlot> slots,
              const std::set<std::int64_t>& donated, std::int64_t alignment,
              const Storage& storage, Program& program) {
  const std::size_t buffers = slots.size();
  const std::vector<std::set<std::int32_t>> waits = dissolve_barriers(kernels, slots);
  std::vector<std::int32_t> writer(buffers, -1);
  std::vector<std::vector<std::int32_t>> readers(buffers);
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    for (const std::int32_t buffer : reads(kernels[k].kernel))
      readers[static_cast<std::size_t>(buffer)].push_back(static_cast<std::int32_t>(k));
    for (const std::int32_t buffer : writes(kernels[k].kernel))
      writer[static_cast<std::size_t>(buffer)] = static_cast<std::int32_t>(k);
  }

  // Kernels that could write over a donated input run last, with whatever waits for their results.
  std::set<std::int32_t> donated_buffers, outputs;
  for (std::size_t b = 0; b < buffers; ++b) {
    if (slots[b].kind == BufferKind::input && donated.contains(slots[b].index))
      donated_buffers.insert(static_cast<std::int32_t>(b));
    if (slots[b].kind == BufferKind::output) outputs.insert(static_cast<std::int32_t>(b));
  }
  std::vector<bool> commits(kernels.size(), false);
  std::vector<std::int32_t> spreading;
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    commits[k] = can_overwrite(kernels[k].kernel, donated_buffers, outputs);
    if (commits[k]) spreading.push_back(static_cast<std::int32_t>(k));
  }
  while (!spreading.empty()) {
    const std::int32_t k = spreading.back();
    spreading.pop_back();
    for (const std::int32_t written : writes(kernels[static_cast<std::size_t>(k)].kernel))
      for (const std::int32_t reader : readers[static_cast<std::size_t>(written)]) {
        if (commits[static_cast<std::size_t>(reader)]) continue;
        commits[static_cast<std::size_t>(reader)] = true;
        spreading.push_back(reader);
      }
  }

  std::vector<int> waiting(kernels.size(), 0);
  for (std::size_t k = 0; k < kernels.size(); ++k)
    for (const std::int32_t buffer : reads(kernels[k].kernel))
      if (writer[static_cast<std::size_t>(buffer)] >= 0) ++waiting[k];
  // Whoever waits for a value without reading it.
  std::vector<std::vector<std::int32_t>> followers(buffers);
  for (std::size_t k = 0; k < kernels.size(); ++k)
    for (const std::int32_t buffer : waits[k]) {
      if (writer[static_cast<std::size_t>(buffer)] < 0) continue;
      ++waiting[k];
      followers[static_cast<std::size_t>(buffer)].push_back(static_cast<std::int32_t>(k));
    }
  // In the order of the graph, but what gives back more memory than it takes runs as soon as it
  // can: a weight's gradient, say, is the last to need the activations, and would keep them all
  // until the graph comes to its weight.
  std::vector<std::int64_t> gain(kernels.size(), 0);
  std::vector<std::size_t> unread(buffers);  // by how many readers still
  using Rank = std::tuple<bool, bool, std::int32_t, std::int32_t>;
  std::priority_queue<Rank, std::vector<Rank>, std::greater<>> ready;
  std::vector<std::int32_t> when(kernels.size(), -1), order;
  const auto enqueue = [&](std::size_t k) {
    ready.push({commits[k], gain[k] <= 0, kernels[k].position, static_cast<std::int32_t>(k)});
  };
  const auto temporary_bytes = [&](std::int32_t b) {
    const BufferSlot& slot = slots[static_cast<std::size_t>(b)];
    return slot.kind == BufferKind::temporary ? static_cast<std::int64_t>(bytes_of(slot.type, storage)) : 0;
  };
  const auto last_reader =
      [&](std::size_t b) {  // there is one reader left: it ends the buffer's life
        for (const std::int32_t reader : readers[b]) {
          const auto r = static_cast<std::size_t>(reader);
          if (when[r] >= 0) continue;
          gain[r] += temporary_bytes(static_cast<std::int32_t>(b));
          if (waiting[r] == 0) enqueue(r);
        }
      };
  for (std::size_t k = 0; k < kernels.size(); ++k)
    for (const std::int32_t buffer : writes(kernels[k].kernel)) gain[k] -= temporary_bytes(buffer);
  for (std::size_t b = 0; b < buffers; ++b) {
    unread[b] = readers[b].size();
    if (unread[b] == 1) last_reader(b);
  }
  for (std::size_t k = 0; k < kernels.size(); ++k)
    if (waiting[k] == 0) enqueue(k);
  while (!ready.empty()) {
    const std::int32_t k = std::get<3>(ready.top());
    ready.pop();
    if (when[static_cast<std::size_t>(k)] >= 0) continue;  // was ready twice, under two ranks
    when[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(order.size());
    order.push_back(k);
    for (const std::int32_t buffer : reads(kernels[static_cast<std::size_t>(k)].kernel))
      if (--unread[static_cast<std::size_t>(buffer)] == 1)
        last_reader(static_cast<std::size_t>(buffer));
    for (const std::int32_t buffer : writes(kernels[static_cast<std::size_t>(k)].kernel))
      for (const auto* waiters : {&readers, &followers})
        for (const std::int32_t waiter : (*waiters)[static_cast<std::size_t>(buffer)])
          if (--waiting[static_cast<std::size_t>(waiter)] == 0)
            enqueue(static_cast<std::size_t>(waiter));
  }
  if (order.size() != kernels.size())
    throw Error("plan: the kernels depend on each other in a circle; this is a planner error");

  // Donations: an output takes over an input of its type that its kernel reads element for element
  // and nobody reads later.
  program.donations.assign(program.outputs.size(), -1);
  program.commit_point = static_cast<std::int32_t>(order.size());
  std::vector<bool> given(buffers, false);
  for (std::size_t b = 0; b < buffers; ++b) {
    if (slots[b].kind != BufferKind::output || writer[b] < 0 ||
        !commits[static_cast<std::size_t>(writer[b])])
      continue;
    const std::int32_t w = writer[b];
    for (const std::int32_t input : donated_buffers) {
      const auto i = static_cast<std::size_t>(input);
      if (given[i] || !(slots[i].type == slots[b].type) ||
          !elementwise_between(kernels[static_cast<std::size_t>(w)].kernel, input,
                               static_cast<std::int32_t>(b)))
        continue;
      const bool last = std::all_of(readers[i].begin(), readers[i].end(), [&](std::int32_t r) {
        return r == w || when[static_cast<std::size_t>(r)] < when[static_cast<std::size_t>(w)];
      });
      if (!last) continue;
      given[i] = true;
      program.donations[static_cast<std::size_t>(slots[b].index)] = slots[i].index;
      program.commit_point = std::min(program.commit_point, when[static_cast<std::size_t>(w)]);
      break;
    }
  }

  // Lifetimes of temporaries; a value written element for element over its last-read operand shares
  // its memory.
  std::vector<std::int32_t> shares(buffers);
  for (std::size_t b = 0; b < buffers; ++b) shares[b] = static_cast<std::int32_t>(b);
  const auto last_read = [&](std::size_t b) {
    std::int32_t last = writer[b] >= 0 ? when[static_cast<std::size_t>(writer[b])] : -1;
    for (const std::int32_t reader : readers[b])
      last = std::max(last, when[static_cast<std::size_t>(reader)]);
    return last;
  };
  const auto temporary = [&](std::int32_t b) {
    return slots[static_cast<std::size_t>(b)].kind == BufferKind::temporary;
  };
  std::map<std::int32_t, Lifetime> lives;
  for (const std::int32_t k : order) {
    const LoweredKernel& kernel = kernels[static_cast<std::size_t>(k)];
    const std::int32_t now = when[static_cast<std::size_t>(k)];
    std::vector<std::int32_t> inputs = reads(kernel.kernel);
    for (const std::int32_t out : writes(kernel.kernel)) {
      if (!temporary(out)) continue;
      const auto o = static_cast<std::size_t>(out);
      const std::int64_t bytes =
          (static_cast<std::int64_t>(bytes_of(slots[o].type, storage)) + alignment - 1) / alignment *
          alignment;
      std::optional<std::int32_t> reused;
      for (std::int32_t& in : inputs) {
        if (in < 0 || !temporary(in) || last_read(static_cast<std::size_t>(in)) != now ||
            bytes_of(slots[static_cast<std::size_t>(in)].type, storage) !=
                bytes_of(slots[o].type, storage))
          continue;
        if (!elementwise_between(kernel.kernel, in, out)) continue;
        reused = shares[static_cast<std::size_t>(in)];
        in = -1;  // taken
        break;
      }
      if (reused) {
        shares[o] = *reused;
        lives[*reused].to = std::max(lives[*reused].to, last_read(o));
      } else {
        lives[out] = {out, now, last_read(o), bytes};
      }
    }
  }
  std::vector<Lifetime> lifetimes;
  for (const auto& [buffer, life] : lives) lifetimes.push_back(life);
  std::vector<std::int64_t> offsets(buffers, 0);
  program.arena_bytes = lifetimes.size() > many_lifetimes ? place_by_time(lifetimes, offsets)
                                                          : place_by_size(lifetimes, offsets);

  // The program: kernels in order over the buffers that are in use.
  std::vector<std::int32_t> numbers(buffers, -1);
  for (std::size_t b = 0; b < buffers; ++b) {
    if (writer[b] < 0 && readers[b].empty()) continue;
    BufferSlot slot = slots[b];
    if (slot.kind == BufferKind::temporary)
      slot.offset = offsets[static_cast<std::size_t>(shares[b])];
    numbers[b] = static_cast<std::int32_t>(program.buffers.size());
    program.buffers.push_back(std::move(slot));
  }
  for (const std::int32_t k : order) {
    Kernel kernel = std::move(kernels[static_cast<std::size_t>(k)].kernel);
    renumber(kernel, numbers);
    program.kernels.push_back(std::move(kernel));
  }
}

}  // namespace fluxion::plan
