// Checks the order of accesses and shared memory: a buffer is written once, before it is read;
// temporaries that live at the same time do not overlap; and a kernel writes over memory that it
// reads only if it reads each element where it writes it.
#include <algorithm>
#include <map>

#include "engine/program/verify_parts.h"

namespace fluxion::verification {

namespace {

class MemoryCheck {
 public:
  explicit MemoryCheck(const Inspection& inspection)
      : inspection_(inspection), program_(inspection.program), accesses_(inspection.accesses) {}

  void run() {
    check_order();
    check_overlap();
    check_donations();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { inspection_.fail(what); }
  const BufferSlot& slot(std::int32_t buffer) const { return inspection_.slot(buffer); }

  struct Life {
    std::int64_t first = -1, last = -1;  // kernels; -1: never
  };

  void check_order() {
    lives_.assign(program_.buffers.size(), {});
    for (std::size_t kernel = 0; kernel < accesses_.size(); ++kernel) {
      const auto now = static_cast<std::int64_t>(kernel);
      for (const Access& access : accesses_[kernel].reads) {
        Life& life = lives_[static_cast<std::size_t>(access.buffer)];
        if (!(life.first >= 0 || slot(access.buffer).kind == BufferKind::input ||
              slot(access.buffer).type.shape.elements() == 0))
          fail("kernel " + std::to_string(kernel) + " reads b" + std::to_string(access.buffer) +
               " before it is written");
        life.last = now;
      }
      for (const Access& access : accesses_[kernel].writes) {
        Life& life = lives_[static_cast<std::size_t>(access.buffer)];
        if (life.first >= 0)
          fail("kernel " + std::to_string(kernel) + " writes b" + std::to_string(access.buffer) +
               " once more");
        life.first = life.last = now;
      }
    }
    for (std::size_t number = 0; number < program_.buffers.size(); ++number) {
      const BufferSlot& slot = program_.buffers[number];
      if (slot.kind == BufferKind::output)
        if (!(lives_[number].first >= 0 || slot.type.shape.elements() == 0))
          fail("output " + std::to_string(slot.index) + " is never written");
    }
  }

  // Whether `kernel` may write `to` in the memory of `from`: it reads `from` only at the same
  // element that it writes.
  bool in_place(std::int64_t kernel, std::int32_t from, std::int32_t to) const {
    const TensorType &a = slot(from).type, &b = slot(to).type;
    const Storage& storage = inspection_.storage;
    if (size_of(storage.kept(a.dtype)) != size_of(storage.kept(b.dtype))) return false;
    const Accesses& accesses = accesses_[static_cast<std::size_t>(kernel)];
    const bool op =
        std::holds_alternative<OpKernel>(program_.kernels[static_cast<std::size_t>(kernel)]);
    for (const Access& read : accesses.reads) {
      if (read.buffer != from) continue;
      for (const Access& write : accesses.writes) {
        if (write.buffer != to) continue;
        const bool same = op ? read.base && a.shape.elements() == b.shape.elements()
                             : read.address && write.address && *read.address == *write.address;
        if (!same) return false;
      }
    }
    return true;
  }

  // Walks the kernels with a map of the bytes in use: offset -> the temporary there. A dead
  // temporary is removed when another one takes its place.
  void check_overlap() const {
    std::vector<std::vector<std::int32_t>> born(program_.kernels.size());
    for (std::size_t number = 0; number < program_.buffers.size(); ++number)
      if (program_.buffers[number].kind == BufferKind::temporary && lives_[number].first >= 0 &&
          program_.buffers[number].type.bytes() > 0)
        born[static_cast<std::size_t>(lives_[number].first)].push_back(
            static_cast<std::int32_t>(number));
    std::map<std::int64_t, std::int32_t> in_use;
    for (std::size_t kernel = 0; kernel < born.size(); ++kernel)
      for (const std::int32_t buffer : born[kernel]) {
        const std::int64_t begin = slot(buffer).offset, end = begin + bytes(buffer);
        auto other = in_use.lower_bound(begin);
        if (other != in_use.begin() &&
            std::prev(other)->first + bytes(std::prev(other)->second) > begin)
          --other;
        while (other != in_use.end() && other->first < end) {
          if (!makes_way(other->second, buffer))
            fail("b" + std::to_string(other->second) + " and b" + std::to_string(buffer) +
                 " share bytes of the arena, and both live at kernel " + std::to_string(kernel));
          other = in_use.erase(other);
        }
        in_use.emplace(begin, buffer);
      }
  }

  // Whether `older` is dead when `younger` is first written, or that same kernel takes it over.
  bool makes_way(std::int32_t older, std::int32_t younger) const {
    const Life &before = lives_[static_cast<std::size_t>(older)],
               &after = lives_[static_cast<std::size_t>(younger)];
    if (before.last < after.first) return true;
    return before.last == after.first && before.first < after.first &&
           slot(older).offset == slot(younger).offset && bytes(older) == bytes(younger) &&
           in_place(after.first, older, younger);
  }

  std::int64_t bytes(std::int32_t buffer) const {
    return static_cast<std::int64_t>(bytes_of(slot(buffer).type, inspection_.storage));
  }

  void check_donations() const {
    if (program_.donations.size() != program_.outputs.size())
      fail("as many donations as outputs are wanted (-1 for none)");
    const auto kernels = static_cast<std::int64_t>(program_.kernels.size());
    if (!(program_.commit_point >= 0 && program_.commit_point <= kernels))
      fail("the commit point lies outside of the program");
    std::vector<bool> donated(program_.inputs.size());
    for (std::size_t output = 0; output < program_.outputs.size(); ++output) {
      const std::int32_t input = program_.donations[output];
      if (input == -1) continue;
      const std::string name = "output " + std::to_string(output);
      if (!(input >= 0 && static_cast<std::size_t>(input) < donated.size()))
        fail(name + " takes over input " + std::to_string(input) + ", which does not exist");
      if (donated[static_cast<std::size_t>(input)])
        fail("input " + std::to_string(input) + " is donated twice");
      donated[static_cast<std::size_t>(input)] = true;
      if (bytes_of(program_.inputs[static_cast<std::size_t>(input)], inspection_.storage) !=
          bytes_of(program_.outputs[output], inspection_.storage))
        fail(name + " and the input it takes over differ in size");
      const std::int32_t to = buffer_of(BufferKind::output, static_cast<std::int64_t>(output));
      const Life& written = lives_[static_cast<std::size_t>(to)];
      if (written.first < 0) continue;
      if (written.first < program_.commit_point)
        fail(name + " overwrites its donor before the commit point");
      const std::int32_t from = buffer_of(BufferKind::input, input);
      if (from < 0) continue;
      const Life& read = lives_[static_cast<std::size_t>(from)];
      if (!(read.last < written.first ||
            (read.last == written.first && in_place(written.first, from, to))))
        fail(name + " overwrites input " + std::to_string(input) + " at kernel " +
             std::to_string(written.first) + ", which is still to be read");
    }
  }

  std::int32_t buffer_of(BufferKind kind, std::int64_t index) const {
    for (std::size_t number = 0; number < program_.buffers.size(); ++number)
      if (program_.buffers[number].kind == kind && program_.buffers[number].index == index)
        return static_cast<std::int32_t>(number);
    return -1;
  }

  const Inspection& inspection_;
  const Program& program_;
  const std::vector<Accesses>& accesses_;  // per kernel
  std::vector<Life> lives_;                // per buffer
};

}  // namespace

void check_memory(const Inspection& inspection) { MemoryCheck(inspection).run(); }

}  // namespace fluxion::verification
