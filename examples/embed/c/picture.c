/* Draws one image and writes it as a PNG file:
 *
 *   picture GENERATOR.fxn OUT.png [SEED [CLASS]]
 *
 * CLASS is a name, or a number where the generator's classes have no names. */
#include <errno.h>
#include <fluxion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "write_png.h"

/* Whether all of the text is a number of at most `most`. */
static int read_number(const char* text, uint64_t most, uint64_t* number) {
  char* end = NULL;
  errno = 0;
  *number = strtoull(text, &end, 10);
  return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *number <= most;
}

/* Whether the generator has that class; says which ones it has where not. */
static int find_class(const fluxion_info* info, const char* text, int32_t* found) {
  const int64_t most_shown = 12;
  uint64_t number = 0;
  int64_t i;
  for (i = 0; info->class_names && i < info->classes; ++i)
    if (strcmp(info->class_names[i], text) == 0) {
      *found = (int32_t)i;
      return 1;
    }
  if (!info->class_names && info->classes > 0 &&
      read_number(text, (uint64_t)info->classes - 1, &number)) {
    *found = (int32_t)number;
    return 1;
  }
  fprintf(stderr, "picture: there is no class %s; ", text);
  if (info->classes == 0) {
    fprintf(stderr, "this generator has none\n");
  } else if (!info->class_names) {
    fprintf(stderr, "they are 0 to %lld\n", (long long)info->classes - 1);
  } else {
    fprintf(stderr, "they are");
    for (i = 0; i < info->classes && i < most_shown; ++i)
      fprintf(stderr, "%s %s", i > 0 ? "," : "", info->class_names[i]);
    fprintf(stderr, info->classes > most_shown ? ", ..\n" : "\n");
  }
  return 0;
}

int main(int argc, char** argv) {
  fluxion_error error;
  fluxion_device* device = NULL;
  fluxion_generator* generator = NULL;
  fluxion_info info = FLUXION_INFO;
  fluxion_request request = FLUXION_REQUEST;
  uint8_t* pixels = NULL;
  int32_t chosen_class = 0;
  int found = 1, done = 0;

  if (argc < 3 || argc > 5 || (argc > 3 && !read_number(argv[3], UINT64_MAX, &request.seed))) {
    fprintf(stderr, "usage: picture GENERATOR.fxn OUT.png [SEED [CLASS]]\n");
    return 2;
  }
  if (fluxion_device_open("cpu", NULL, &device, &error) == FLUXION_OK &&
      fluxion_generator_open(device, argv[1], &generator, &error) == FLUXION_OK &&
      fluxion_generator_info(generator, &info, &error) == FLUXION_OK) {
    if (argc > 4) {
      found = find_class(&info, argv[4], &chosen_class);
      request.classes = &chosen_class;
    }
    if (found) pixels = malloc((size_t)info.elements);
    if (pixels && fluxion_generate_pixels(generator, &request, pixels, (size_t)info.elements,
                                          &error) == FLUXION_OK)
      done =
          write_png(argv[2], pixels, (size_t)info.width, (size_t)info.height, (int)info.channels);
  }
  if (!done && found)
    fprintf(stderr, "picture: %s\n", error.message[0] ? error.message : "can't write it");
  free(pixels);
  fluxion_generator_close(generator);
  fluxion_device_close(device);
  return done ? 0 : 1;
}
