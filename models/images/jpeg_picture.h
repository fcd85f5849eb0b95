// From the samples of a JPEG's components to pixels. For decode_image alone.
#pragma once

#include <vector>

#include "models/images/image.h"
#include "models/images/jpeg_samples.h"

namespace fluxion::jpeg {

// Grey or RGB. Components of half the resolution are interpolated linearly, others repeated;
// colours are converted as JFIF states. The same bits as libjpeg, and CMYK as Pillow reads it:
// 255 is no ink.
Image picture(const File& file, const std::vector<Plane>& planes);

}  // namespace fluxion::jpeg
