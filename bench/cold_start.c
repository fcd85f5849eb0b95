/* From the start of a process to the first image in memory, with the runtime library; cold_start.sh builds and runs it.
 *
 *   cold_start GENERATOR.fxn THREADS [CALLS | OUT]
 *
 * Prints a line of JSON: when things were done, in seconds of the monotonic clock. With CALLS also how many milliseconds each of so many later
 * calls took, for one image and for 64. With OUT, a path, it writes noise and image of seed 7 and class 3 to OUT.noise and OUT.image, as floats. */
#include <fluxion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MANY = 64 };

static fluxion_error error;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void must(int done, const char* what) {
  if (done) return;
  fprintf(stderr, "cold_start: %s: %s\n", what, error.message);
  exit(1);
}

static void write_floats(const char* path, const char* end, const float* values, size_t count) {
  char name[4096];
  FILE* file;
  snprintf(name, sizeof name, "%s%s", path, end);
  file = fopen(name, "wb");
  must(file && fwrite(values, sizeof(float), count, file) == count && fclose(file) == 0, name);
}

int main(int argc, char** argv) {
  const double begun = now();
  double opened, image;
  char device_name[32];
  int32_t classes[MANY];
  fluxion_device* device = NULL;
  fluxion_generator* generator = NULL;
  fluxion_info info = FLUXION_INFO;
  fluxion_request request = FLUXION_REQUEST;
  float* samples;
  char* rest = NULL;
  long calls = 0, i;
  size_t elements;

  if (argc != 3 && argc != 4) {
    fprintf(stderr, "usage: cold_start GENERATOR.fxn THREADS [CALLS | OUT]\n");
    return 2;
  }
  for (i = 0; i < MANY; ++i) classes[i] = 3;
  snprintf(device_name, sizeof device_name, "cpu:%s", argv[2]);
  must(fluxion_device_open(device_name, NULL, &device, &error) == FLUXION_OK, device_name);
  must(fluxion_generator_open(device, argv[1], &generator, &error) == FLUXION_OK, argv[1]);
  must(fluxion_generator_info(generator, &info, &error) == FLUXION_OK, "info");
  opened = now();
  elements = (size_t)info.elements;
  samples = malloc(MANY * elements * sizeof(float));
  must(samples != NULL, "memory");
  request.seed = 7;
  request.classes = classes;
  must(fluxion_generate(generator, &request, samples, elements, &error) == FLUXION_OK, "draw");
  image = now();
  printf("{\"begun\": %.6f, \"opened\": %.6f, \"image\": %.6f", begun, opened, image);

  if (argc == 4) calls = strtol(argv[3], &rest, 10);
  if (argc == 4 && *rest) {
    write_floats(argv[3], ".image", samples, elements);
    must(fluxion_noise(generator, &request, samples, elements, &error) == FLUXION_OK, "noise");
    write_floats(argv[3], ".noise", samples, elements);
    calls = 0;
  }
  for (request.count = 1; calls && request.count <= MANY; request.count *= MANY) {
    request.batch = request.count;
    must(fluxion_generate(generator, &request, samples, request.count * elements, &error) == FLUXION_OK, "draw");
    printf(", \"batch %d\": [", (int)request.count);
    for (i = 0; i < calls; ++i) {
      const double start = now();
      must(fluxion_generate(generator, &request, samples, request.count * elements, &error) == FLUXION_OK, "draw");
      printf("%s%.4f", i ? ", " : "", 1e3 * (now() - start));
    }
    printf("]");
  }
  printf("}\n");
  free(samples);
  fluxion_generator_close(generator);
  fluxion_device_close(device);
  return 0;
}
