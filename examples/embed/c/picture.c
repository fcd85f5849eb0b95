/* Draws one image and writes it as a PNG file:
 *
 *   picture GENERATOR.fxn OUT.png [SEED [CLASS]] */
#include <fluxion.h>
#include <stdio.h>
#include <stdlib.h>

#include "write_png.h"

int main(int argc, char** argv) {
  fluxion_error error;
  fluxion_device* device = NULL;
  fluxion_generator* generator = NULL;
  fluxion_info info = FLUXION_INFO;
  fluxion_request request = FLUXION_REQUEST;
  uint8_t* pixels = NULL;
  int32_t chosen_class;
  int done = 0;

  if (argc < 3) {
    fprintf(stderr, "usage: picture GENERATOR.fxn OUT.png [SEED [CLASS]]\n");
    return 2;
  }
  if (argc > 3) request.seed = strtoull(argv[3], NULL, 10);
  if (argc > 4) {
    chosen_class = (int32_t)strtol(argv[4], NULL, 10);
    request.classes = &chosen_class;
  }
  if (fluxion_device_open("cpu", NULL, &device, &error) == FLUXION_OK &&
      fluxion_generator_open(device, argv[1], &generator, &error) == FLUXION_OK &&
      fluxion_generator_info(generator, &info, &error) == FLUXION_OK) {
    pixels = malloc((size_t)info.elements);
    if (pixels && fluxion_generate_pixels(generator, &request, pixels, (size_t)info.elements,
                                          &error) == FLUXION_OK)
      done =
          write_png(argv[2], pixels, (size_t)info.width, (size_t)info.height, (int)info.channels);
  }
  if (!done) fprintf(stderr, "picture: %s\n", error.message[0] ? error.message : "can't write it");
  free(pixels);
  fluxion_generator_close(generator);
  fluxion_device_close(device);
  return done ? 0 : 1;
}
