/* The Fluxion runtime: draws samples from a trained generator, in a program written in C or in any
 * language that can call C. A generator is a file that `fluxion export` wrote (.fxn). See
 * docs/embedding.md.
 *
 *   fluxion_error error;
 *   fluxion_device* device = NULL;
 *   fluxion_generator* digits = NULL;
 *   fluxion_request request = FLUXION_REQUEST;  // one sample of seed 0
 *   uint8_t pixels[16 * 16];  // as many as fluxion_generator_info says
 *   if (fluxion_device_open("cpu", NULL, &device, &error) != FLUXION_OK ||
 *       fluxion_generator_open(device, "digits.fxn", &digits, &error) != FLUXION_OK ||
 *       fluxion_generate_pixels(digits, &request, pixels, sizeof pixels, &error) != FLUXION_OK)
 *     puts(error.message);
 *   fluxion_generator_close(digits);
 *   fluxion_device_close(device);
 *
 * Errors. A function that can fail returns a status. It also fills in a fluxion_error of the
 * caller's, unless that is NULL: with the status and a message on failure, with FLUXION_OK and an
 * empty message on success. After a failure nothing is open that was not open before, results given
 * by pointer are untouched unless their function says otherwise, and the call may be made again.
 * The library never throws, ends the process, prints or reads standard input.
 *
 * Threads. Every function may be called from any thread, and from several at once with the same
 * handles. A handle is closed once, when no call uses it; a device may be closed before its
 * generators, which keep it. There is no state outside of the handles. A child of fork() has none
 * of the threads and opens handles of its own: those of its parent it may close where they are of
 * the CPU, and no call used them at the fork; it does nothing else with them.
 *
 * Memory. The library frees what it allocated when the handle is closed. Pointers that it returns
 * live as long as the handle that they were asked of. It keeps none of the caller's, but those of
 * fluxion_device_from_vulkan: lock, unlock, lock_data, the function that loads Vulkan's and the
 * handles are used until the device and all of its generators are closed.
 *
 * Compatibility. Structures begin with their size, which their initialiser fills in, so that later
 * versions can add members at the end. Text is UTF-8. */
#ifndef FLUXION_H
#define FLUXION_H

#include <stddef.h>
#include <stdint.h>

#define FLUXION_VERSION_MAJOR 0
#define FLUXION_VERSION_MINOR 1
#define FLUXION_VERSION_PATCH 0

/* Define FLUXION_STATIC where the static library is linked, as its CMake target does. */
#if defined(FLUXION_STATIC)
#define FLUXION_API
#elif defined(_WIN32) && defined(FLUXION_BUILD)
#define FLUXION_API __declspec(dllexport)
#elif defined(_WIN32)
#define FLUXION_API __declspec(dllimport)
#elif defined(__GNUC__)
#define FLUXION_API __attribute__((visibility("default")))
#else
#define FLUXION_API
#endif

#ifdef __cplusplus
#define FLUXION_NOEXCEPT noexcept
extern "C" {
#else
#define FLUXION_NOEXCEPT
#endif

/* ---- errors */

typedef enum fluxion_status {
  FLUXION_OK = 0,
  FLUXION_INVALID_ARGUMENT = 1, /* the call can't be right: the message says which argument */
  FLUXION_CANNOT_READ = 2,      /* the operating system refused to read the file */
  FLUXION_BAD_FILE = 3,         /* no generator, a damaged one, or one of a newer version */
  FLUXION_NO_DEVICE = 4,        /* there is no such device, or it can't be used */
  FLUXION_OUT_OF_MEMORY = 5,    /* memory ran out, or the device's memory budget */
  FLUXION_CANCELLED = 6,
  FLUXION_DEVICE_LOST = 7, /* the driver gave up: close the device and its generators */
  FLUXION_INTERNAL = 8     /* a bug of the library; please report the message */
} fluxion_status;

/* Never grows. */
typedef struct fluxion_error {
  int32_t status;     /* a fluxion_status */
  char message[1020]; /* one line, ends with a zero; cut off where it is longer */
} fluxion_error;

/* "out of memory"; "unknown status" for another number. */
FLUXION_API const char* fluxion_status_name(int32_t status) FLUXION_NOEXCEPT;

/* That of the library, "0.1.0". The macros are those of the header. */
FLUXION_API const char* fluxion_version(void) FLUXION_NOEXCEPT;

/* ---- devices */

/* Where generators run: its threads or its GPU, plans and memory. */
typedef struct fluxion_device fluxion_device;

typedef struct fluxion_device_info {
  size_t struct_size;
  const char* name;        /* what opens it: "cpu", "vulkan:0" */
  const char* description; /* "AMD Radeon RX 6800" */
  const char* kind;      /* "processor"; "discrete", "integrated", "virtual", "software", "other" */
  const char* driver;    /* "radv Mesa 24.1"; empty: none */
  const char* refused;   /* why it can't be used; empty: it can */
  uint64_t memory_bytes; /* of its own; 0: the host's */
  int32_t preferred;     /* 1: the one that "vulkan" opens, and "cpu" */
} fluxion_device_info;

/* Calls each(data, info) for every device that this machine has, the CPU first. The information
 * lives until `each` returns; its struct_size is the library's. */
FLUXION_API fluxion_status fluxion_list_devices(void (*each)(void* data,
                                                             const fluxion_device_info* info),
                                                void* data, fluxion_error* error) FLUXION_NOEXCEPT;

typedef struct fluxion_device_options {
  size_t struct_size;
  /* Bytes that the device may hold at once: weights, temporaries and what it keeps for reuse.
   * 0: no limit. What would need more is refused with FLUXION_OUT_OF_MEMORY. */
  uint64_t memory_budget;
  /* Of Vulkan: the folder where the driver's compiled kernels are kept between runs, which makes
   * the second start faster. NULL: fluxion/ in the user's cache folder; "": nothing is kept. */
  const char* kernel_cache;
} fluxion_device_options;
#define FLUXION_DEVICE_OPTIONS \
  { sizeof(fluxion_device_options), 0, NULL }

/* Opens "cpu" (a thread for each core), "cpu:N" (N threads, of which the caller's is one), "vulkan"
 * (the first discrete GPU, else the first integrated one) or "vulkan:N" (GPU number N of
 * fluxion_list_devices). NULL is "cpu". options: NULL for the defaults.
 * FLUXION_INVALID_ARGUMENT for another name, FLUXION_NO_DEVICE where there is none such. */
FLUXION_API fluxion_status fluxion_device_open(const char* name,
                                               const fluxion_device_options* options,
                                               fluxion_device** device,
                                               fluxion_error* error) FLUXION_NOEXCEPT;
/* NULL is allowed, here and in the other functions that close or destroy. */
FLUXION_API void fluxion_device_close(fluxion_device* device) FLUXION_NOEXCEPT;

/* "cpu (2 threads, AVX2)"; NULL for NULL. */
FLUXION_API const char* fluxion_device_description(const fluxion_device* device) FLUXION_NOEXCEPT;

typedef struct fluxion_memory {
  size_t struct_size;
  uint64_t in_use; /* bytes of weights and of calls in flight */
  uint64_t kept;   /* free, for reuse: fluxion_device_trim gives them back */
  uint64_t peak;   /* the largest sum of both that was seen after a step or an opening */
  uint64_t budget; /* 0: no limit */
} fluxion_memory;
#define FLUXION_MEMORY \
  { sizeof(fluxion_memory), 0, 0, 0, 0 }

/* Fills in *memory, whose struct_size the caller has set. It counts the device's memory, not what
 * the library holds on the host beside it: plans and, for each call in flight, its batch up to
 * twice and the noise of up to 2 * 64 samples, which stays for later calls. */
FLUXION_API fluxion_status fluxion_device_memory(const fluxion_device* device,
                                                 fluxion_memory* memory,
                                                 fluxion_error* error) FLUXION_NOEXCEPT;
/* Gives memory that is kept for reuse back to the system. */
FLUXION_API fluxion_status fluxion_device_trim(fluxion_device* device,
                                               fluxion_error* error) FLUXION_NOEXCEPT;

/* ---- generators */

/* A trained generator with its weights on a device. */
typedef struct fluxion_generator fluxion_generator;

/* Opens a file, or the bytes of one. The weights are copied to the device: file and bytes are not
 * used after the call. FLUXION_CANNOT_READ, FLUXION_BAD_FILE, FLUXION_OUT_OF_MEMORY. */
FLUXION_API fluxion_status fluxion_generator_open(fluxion_device* device, const char* path,
                                                  fluxion_generator** generator,
                                                  fluxion_error* error) FLUXION_NOEXCEPT;
FLUXION_API fluxion_status fluxion_generator_open_memory(fluxion_device* device, const void* bytes,
                                                         size_t size, fluxion_generator** generator,
                                                         fluxion_error* error) FLUXION_NOEXCEPT;
FLUXION_API void fluxion_generator_close(fluxion_generator* generator) FLUXION_NOEXCEPT;

typedef struct fluxion_info {
  size_t struct_size;
  const char* name; /* of what it was trained on; may be empty */
  /* The sizes of one sample, row-major, and their product. */
  const int64_t* shape;
  int64_t rank, elements;
  /* Of images, shape [height, width, channels] with 1 (grey) or 3 (RGB) channels; else 0. */
  int64_t height, width, channels;
  /* Samples are of class 0 .. classes - 1; 0: they have no class. */
  int64_t classes;
  const char* const* class_names; /* one for each class, or NULL */
  /* Those that samples are of in turn where the request names none. */
  const int32_t* usual_classes;
  int64_t usual_class_count;
  int32_t open_class; /* 1: a class may be FLUXION_OPEN_CLASS */
  int64_t steps;      /* of a batch from noise to samples */
  double evaluations; /* of the network for each sample, which guidance doubles */
  uint64_t weights;   /* bytes on the device */
  /* 1: a request may set the scale of classifier-free guidance (1: none; larger: samples keep
   * closer to their class and differ less); `guidance` is what it is otherwise. */
  int64_t free_guidance;
  double guidance;
} fluxion_info;
#define FLUXION_INFO \
  { sizeof(fluxion_info), NULL, NULL, 0, 0, 0, 0, 0, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0 }

/* Fills in *info, whose struct_size the caller has set. Its pointers live until the generator is
 * closed. */
FLUXION_API fluxion_status fluxion_generator_info(const fluxion_generator* generator,
                                                  fluxion_info* info,
                                                  fluxion_error* error) FLUXION_NOEXCEPT;

/* Plans and compiles for batches of this many samples (1 .. 65536), which the first call of
 * fluxion_generate would do otherwise, and says in *bytes, unless it is NULL, how much memory one
 * such call needs on the device, weights included: a device with this budget can make it.
 * FLUXION_BAD_FILE for a file that does not fit this size, or can't be computed here; so, too, in
 * fluxion_generate. */
FLUXION_API fluxion_status fluxion_generator_prepare(const fluxion_generator* generator,
                                                     int64_t batch, uint64_t* bytes,
                                                     fluxion_error* error) FLUXION_NOEXCEPT;

/* ---- samples */

/* Lets another thread stop calls. */
typedef struct fluxion_cancel fluxion_cancel;

FLUXION_API fluxion_status fluxion_cancel_create(fluxion_cancel** cancel,
                                                 fluxion_error* error) FLUXION_NOEXCEPT;
/* Calls that were given it return FLUXION_CANCELLED: those under way before their next kernel (on
 * a GPU, their next slice of about 100 ms) or, where they plan a batch size, after the plan they
 * are at; later ones at once. A kernel of a crafted file may take hours. It does not end the wait
 * for an application's semaphore. There is no way back. */
FLUXION_API void fluxion_cancel_request(fluxion_cancel* cancel) FLUXION_NOEXCEPT;
/* Not while a call that was given it is under way. */
FLUXION_API void fluxion_cancel_destroy(fluxion_cancel* cancel) FLUXION_NOEXCEPT;

/* Called on the caller's thread after each step of each batch: `done` of `all` steps. Anything but
 * 0 stops the call, which then returns FLUXION_CANCELLED. It must not throw, nor leave by longjmp.
 */
typedef int (*fluxion_progress)(void* data, int64_t done, int64_t all);

/* Leaves the class of a sample open. */
#define FLUXION_OPEN_CLASS (-1)

/* Which samples. Sample number i of a seed is the same in every call (its bits as long as batch,
 * device and library are), so the requests (first 0, count 100) and ten with first 0, 10, .. 90 and
 * count 10 draw the same. */
typedef struct fluxion_request {
  size_t struct_size;
  uint64_t seed;
  int64_t first; /* number of the first sample, from 0; first + count <= 2^37 */
  int64_t count; /* 0 or more */
  /* The class of each, or NULL for the usual ones in turn: sample i is of class
   * usual_classes[i % usual_class_count]. Where there are none, it is left open; where it can't
   * be, it is class i % classes. */
  const int32_t* classes;
  /* Samples that run together, 1 .. 65536: more are faster, and need more memory. 0: `count`, at
   * most 64. A batch size is planned when it is first used; the plans of the last 16 sizes are
   * kept. The last batch of a call is filled up. */
  int64_t batch;
  fluxion_progress progress; /* or NULL */
  void* progress_data;
  const fluxion_cancel* cancel; /* or NULL */
  /* What the samples begin with in place of the seed's noise, [count][..shape], standard normal
   * numbers such as mixtures a * x + b * y with a^2 + b^2 = 1 of what fluxion_noise gives; or NULL.
   * Steps that draw noise on their way draw that of the seed. */
  const float* noise;
  /* 1: samples are guided with the scale `guidance`, of a generator that leaves it free; 0: with
   * the generator's own. */
  int64_t set_guidance;
  double guidance;
} fluxion_request;
#define FLUXION_REQUEST \
  { sizeof(fluxion_request), 0, 0, 1, NULL, 0, NULL, NULL, NULL, NULL, 0, 0 }

/* Draws samples into samples[count][..shape], row-major. Images have values in about [-1, 1].
 * `capacity` is the number of floats that `samples` has room for, at least count * elements. After
 * a failure the content of `samples` is undefined. */
FLUXION_API fluxion_status fluxion_generate(const fluxion_generator* generator,
                                            const fluxion_request* request, float* samples,
                                            size_t capacity, fluxion_error* error) FLUXION_NOEXCEPT;

/* The same for images, as bytes: round((x + 1) * 127.5), clamped to 0 .. 255, NaN as 0.
 * FLUXION_INVALID_ARGUMENT for samples that are no images. */
FLUXION_API fluxion_status fluxion_generate_pixels(const fluxion_generator* generator,
                                                   const fluxion_request* request, uint8_t* pixels,
                                                   size_t capacity,
                                                   fluxion_error* error) FLUXION_NOEXCEPT;

/* The noise that these samples begin with, noise[count][..shape]: handed back in a request, it
 * gives the same samples. It depends on seed, first and count, and `cancel` stops it; the rest of
 * the request is not used, but refused where fluxion_generate would refuse it. */
FLUXION_API fluxion_status fluxion_noise(const fluxion_generator* generator,
                                         const fluxion_request* request, float* noise,
                                         size_t capacity, fluxion_error* error) FLUXION_NOEXCEPT;

/* ---- Vulkan of the application's own
 *
 * A device on the VkDevice of the application, and samples in its VkBuffer, which never pass
 * through the host. Handles are those of <vulkan/vulkan.h>, which this header does not include:
 * those that are pointers everywhere as void*, VkBuffer and VkSemaphore as numbers,
 * (uint64_t)buffer. The library destroys none of them. In a build without Vulkan all three
 * functions return FLUXION_NO_DEVICE. */

typedef struct fluxion_vulkan {
  size_t struct_size;
  void (*get_instance_proc_addr)(void); /* vkGetInstanceProcAddr, of any loader, cast */
  void* instance;                       /* VkInstance */
  void* physical_device;                /* VkPhysicalDevice */
  uint32_t api_version;                 /* VkApplicationInfo::apiVersion of the instance: 1.1 .. */
  uint32_t queue_family, queue_index;   /* the queue that work goes to; its family computes */
  /* 1: while a call uses the device, no other thread uses the queue, or waits for all of the
   * VkDevice. 0: lock and unlock are called around each use of the queue, from any thread. */
  int32_t queue_is_unshared;
  void (*lock)(void* data);
  void (*unlock)(void* data);
  void* lock_data;
  void* device; /* VkDevice */
  /* The VkDeviceCreateInfo that the device was made with, or one that says the same: queues,
   * extensions and features, also in structures of Vulkan 1.1 to 1.3. Read during the call. */
  const void* device_info;
} fluxion_vulkan;
#define FLUXION_VULKAN \
  { sizeof(fluxion_vulkan), NULL, NULL, NULL, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL }

typedef struct fluxion_vulkan_need {
  size_t struct_size;
  const char* name;      /* "timelineSemaphore", "VK_EXT_memory_budget" */
  const char* structure; /* of a feature: "VkPhysicalDeviceTimelineSemaphoreFeatures"; empty: it is
                          * an extension */
  int32_t required;      /* 1: a device without it is refused; 0: it makes kernels better */
} fluxion_vulkan_need;

/* Calls each(data, need) for everything that a VkDevice should have enabled, of what this physical
 * device has, before it is made. Of *vulkan it uses the members down to api_version. Needs live
 * until `each` returns. FLUXION_NO_DEVICE where the physical device can't be used. */
FLUXION_API fluxion_status fluxion_vulkan_needs(const fluxion_vulkan* vulkan,
                                                void (*each)(void* data,
                                                             const fluxion_vulkan_need* need),
                                                void* data, fluxion_error* error) FLUXION_NOEXCEPT;

/* A device for generators that computes on the application's VkDevice, in one of its queues. Close
 * it, and its generators, before the VkDevice is destroyed. FLUXION_NO_DEVICE names what is not
 * enabled. */
FLUXION_API fluxion_status fluxion_device_from_vulkan(const fluxion_vulkan* vulkan,
                                                      const fluxion_device_options* options,
                                                      fluxion_device** device,
                                                      fluxion_error* error) FLUXION_NOEXCEPT;

/* Where samples go, when they may, and what says that they are there. */
typedef struct fluxion_vulkan_target {
  size_t struct_size;
  uint64_t buffer;       /* VkBuffer of the same VkDevice; of the queue's family, or concurrent */
  uint64_t offset, size; /* the bytes that the call may write; offset is a multiple of 4 */
  uint32_t usage;        /* VkBufferUsageFlags it was made with: transfer destination at least */
  /* Timeline semaphores, 0: none. The buffer is written after wait_semaphore has wait_value, and
   * signal_semaphore has signal_value after it was written. */
  uint64_t wait_semaphore, wait_value;
  uint64_t signal_semaphore, signal_value;
} fluxion_vulkan_target;
#define FLUXION_VULKAN_TARGET \
  { sizeof(fluxion_vulkan_target), 0, 0, 0, 0, 0, 0, 0, 0 }

/* Draws samples as fluxion_generate does, floats [count][..shape], into the application's buffer.
 * With a signal_semaphore it returns while the last batch is under way, and nothing is signalled if
 * it fails; without one it returns when the samples are there. Where it draws several batches, it
 * waits for the first one to be written. After a failure the content of the bytes is undefined, and
 * nothing of the call is under way: it waits for what it has submitted.
 * FLUXION_INVALID_ARGUMENT for a buffer that is too small, misaligned, or of another usage, and for
 * a generator on a device that fluxion_device_open has opened. */
FLUXION_API fluxion_status fluxion_generate_to_vulkan(const fluxion_generator* generator,
                                                      const fluxion_request* request,
                                                      const fluxion_vulkan_target* target,
                                                      fluxion_error* error) FLUXION_NOEXCEPT;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* FLUXION_H */
