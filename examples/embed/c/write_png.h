/* Writes PNG files, for the examples. */
#ifndef FLUXION_EXAMPLES_WRITE_PNG_H
#define FLUXION_EXAMPLES_WRITE_PNG_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_u32(unsigned char* to, uint32_t value) {
  for (int i = 0; i < 4; ++i) to[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* Length, name and content, checksum; `chunk` has the name in bytes 4 to 7, and room for the rest.
 */
static void write_chunk(FILE* file, unsigned char* chunk, size_t length) {
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 4; i < 8 + length; ++i) {
    crc ^= chunk[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  put_u32(chunk, (uint32_t)length);
  put_u32(chunk + 8 + length, ~crc);
  fwrite(chunk, 1, length + 12, file);
}

/* Rows in zlib's format, one uncompressed block for each: width * channels is below 65535. */
static int write_png(const char* path, const uint8_t* pixels, size_t width, size_t height,
                     int channels) {
  const size_t row = width * (size_t)channels, block = row + 1;
  unsigned char header[25] = "    IHDR", end[12] = "    IEND";
  unsigned char* const data = malloc(12 + 2 + height * (5 + block) + 4);
  FILE* const file = fopen(path, "wb");
  if (!data || !file) return 0;
  put_u32(header + 8, (uint32_t)width);
  put_u32(header + 12, (uint32_t)height);
  header[16] = 8; /* bits */
  header[17] = channels == 3 ? 2 : 0;

  memcpy(data, "    IDAT\x78\x01", 10);
  unsigned char* to = data + 10;
  uint32_t a = 1, b = 0; /* Adler-32 */
  for (size_t y = 0; y < height; ++y) {
    const unsigned char start[6] = {y + 1 == height, block & 255,       block >> 8 & 255,
                                    ~block & 255,    ~block >> 8 & 255, 0 /* no filter */};
    memcpy(to, start, 6);
    memcpy(to + 6, pixels + y * row, row);
    for (size_t i = 0; i < block; ++i) {
      a = (a + to[5 + i]) % 65521;
      b = (b + a) % 65521;
    }
    to += 5 + block;
  }
  put_u32(to, b << 16 | a);

  fwrite("\x89PNG\r\n\x1a\n", 1, 8, file);
  write_chunk(file, header, 13);
  write_chunk(file, data, (size_t)(to + 4 - data) - 8);
  write_chunk(file, end, 0);
  free(data);
  return fclose(file) == 0;
}

#endif
