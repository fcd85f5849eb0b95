// The inverse cosine transform of a block of 8 x 8 (ITU-T T.81, A.3.3).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fluxion::jpeg {

// From coefficients, row-major and multiplied by their quantisation steps, to samples 0 to 255.
// The integer arithmetic of libjpeg's accurate method, after C. Loeffler, A. Ligtenberg and
// G. Moschytz (ICASSP 1989): within a level of the exact transform, and the same bits as libjpeg.
void inverse_transform(const std::array<std::int32_t, 64>& coefficients, std::uint8_t* samples,
                       std::size_t stride);

}  // namespace fluxion::jpeg
