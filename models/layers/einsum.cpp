#include "models/layers/einsum.h"

#include <algorithm>
#include <map>
#include <string>

namespace fluxion {
namespace {

// A tensor whose axes have names.
struct Named {
  Tensor x;
  std::string axes;  // a letter each

  bool has(char axis) const { return axes.find(axis) != std::string::npos; }
  std::int64_t size(char axis) const {
    return has(axis) ? x.size(static_cast<std::int64_t>(axes.find(axis))) : 1;
  }
};

std::string in_all(const std::string& axes, const Named& other) {
  std::string result;
  std::copy_if(axes.begin(), axes.end(), std::back_inserter(result),
               [&](char axis) { return other.has(axis); });
  return result;
}
std::string without(const std::string& axes, const std::string& others) {
  std::string result;
  std::copy_if(axes.begin(), axes.end(), std::back_inserter(result),
               [&](char axis) { return others.find(axis) == std::string::npos; });
  return result;
}

// The same with its axes in this order; the ones it lacks get size 1.
Tensor arranged(const Named& named, const std::string& order, Location where) {
  Dims permutation, sizes;
  for (const char axis : order) {
    if (named.has(axis)) permutation.push_back(static_cast<std::int64_t>(named.axes.find(axis)));
    sizes.push_back(named.size(axis));
  }
  return reshape(transpose(named.x, permutation, where), Shape(sizes), where);
}

// Sums away the axes that nothing else names.
Named reduced(Named named, const std::string& wanted, Location where) {
  const std::string lone = without(named.axes, wanted);
  if (lone.empty()) return named;
  Dims axes;
  for (const char axis : lone) axes.push_back(static_cast<std::int64_t>(named.axes.find(axis)));
  return {sum(named.x, axes, false, where), without(named.axes, lone)};
}

// The product of a and b, summed over what is not wanted.
Named joined(Named a, Named b, const std::string& wanted, Location where) {
  a = reduced(a, wanted + b.axes, where);
  b = reduced(b, wanted + a.axes, where);
  const std::string shared = in_all(a.axes, b), summed = without(shared, wanted),
                    batch = without(shared, summed);
  const std::string rows = without(a.axes, shared), columns = without(b.axes, shared),
                    result = batch + rows + columns;
  if (summed.empty() || (rows.empty() && columns.empty())) {
    const Named product{mul(Operand(arranged(a, result + summed, where), where),
                            Operand(arranged(b, result + summed, where), where)),
                        result + summed};
    return reduced(product, result, where);
  }
  const auto size = [](const Named& named, const std::string& axes) {
    std::int64_t product = 1;
    for (const char axis : axes) product *= named.size(axis);
    return product;
  };
  const std::int64_t items = size(a, batch), inner = size(a, summed);
  const Tensor left =
      reshape(arranged(a, batch + rows + summed, where), {items, size(a, rows), inner}, where);
  const Tensor right = reshape(arranged(b, batch + summed + columns, where),
                               {items, inner, size(b, columns)}, where);
  Dims sizes;
  for (const char axis : result) sizes.push_back(a.has(axis) ? a.size(axis) : b.size(axis));
  return {reshape(matmul(left, right, where), Shape(sizes), where), result};
}

}  // namespace

Tensor einsum(std::string_view equation, std::span<const Tensor> operands, Location where) {
  const auto require = [&](bool holds, const std::string& wanted) {
    if (!holds)
      throw ShapeError("einsum (" + to_string(where) + "): \"" + std::string(equation) +
                       "\": " + wanted);
  };
  std::string text(equation);
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  const std::size_t arrow = text.find("->");
  require(arrow != std::string::npos, "wants an explicit result, as in \"ij,jk->ik\"");
  const std::string result = text.substr(arrow + 2);
  std::vector<std::string> subscripts(1);
  for (const char each : text.substr(0, arrow)) {
    if (each == ',')
      subscripts.emplace_back();
    else
      subscripts.back().push_back(each);
  }
  require(subscripts.size() == operands.size(), std::to_string(subscripts.size()) +
                                                    " lists of axes for " +
                                                    std::to_string(operands.size()) + " operands");

  std::vector<Named> left;
  std::map<char, std::int64_t> sizes;
  const auto check_letters = [&](const std::string& axes) {
    for (const char axis : axes) {
      require((axis >= 'a' && axis <= 'z') || (axis >= 'A' && axis <= 'Z'),
              std::string("axes are named by letters, not by '") + axis + "'");
      require(std::count(axes.begin(), axes.end(), axis) == 1,
              std::string("'") + axis + "' occurs twice in \"" + axes + "\"");
    }
  };
  for (std::size_t i = 0; i < operands.size(); ++i) {
    const std::string& axes = subscripts[i];
    check_letters(axes);
    require_tensor(operands[i], "einsum", "operand " + std::to_string(i), where);
    require(static_cast<std::int64_t>(axes.size()) == operands[i].rank(),
            "operand " + std::to_string(i) + ", " + to_string(operands[i].type()) +
                ", does not have the axes \"" + axes + "\"");
    for (std::size_t k = 0; k < axes.size(); ++k) {
      const std::int64_t size = operands[i].size(static_cast<std::int64_t>(k));
      const auto known = sizes.emplace(axes[k], size).first;
      if (known->second == 1) known->second = size;
      require(size == 1 || known->second == size, std::string("axis '") + axes[k] + "' has size " +
                                                      std::to_string(size) + " in operand " +
                                                      std::to_string(i) + " and " +
                                                      std::to_string(known->second) + " before");
    }
  }
  // What is repeated along an axis is the same without it.
  for (std::size_t i = 0; i < operands.size(); ++i) {
    std::string axes;
    Dims kept;
    for (std::size_t k = 0; k < subscripts[i].size(); ++k) {
      const std::int64_t size = operands[i].size(static_cast<std::int64_t>(k));
      if (size != sizes[subscripts[i][k]]) continue;
      axes.push_back(subscripts[i][k]);
      kept.push_back(size);
    }
    left.push_back({reshape(operands[i], Shape(kept), where), axes});
  }
  check_letters(result);
  for (const char axis : result)
    require(sizes.contains(axis), std::string("no operand has the result's axis '") + axis + "'");

  const auto multiplications = [&](const Named& a, const Named& b) {
    double product = 1;
    for (const char axis : a.axes + without(b.axes, a.axes))
      product *= static_cast<double>(sizes[axis]);
    return product;
  };
  while (left.size() > 1) {
    std::size_t first = 0, second = 1;
    for (std::size_t i = 0; i < left.size(); ++i)
      for (std::size_t j = i + 1; j < left.size(); ++j)
        if (multiplications(left[i], left[j]) < multiplications(left[first], left[second]))
          first = i, second = j;
    std::string wanted = result;
    for (std::size_t i = 0; i < left.size(); ++i)
      if (i != first && i != second) wanted += left[i].axes;
    Named both = joined(left[first], left[second], wanted, where);
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(second));
    left[first] = std::move(both);
  }
  return arranged(reduced(left.front(), result, where), result, where);
}

}  // namespace fluxion
