"""Draws samples from generators that `fluxion export` wrote, with the runtime library.

    import fluxion

    digits = fluxion.Generator("digits.fxn")
    images = digits.pixels(count=10, seed=1, classes=range(10))   # [10, height, width, channels]

This file is all there is: it loads libfluxion-runtime through ctypes. Results are numpy arrays where
numpy is installed, else memoryviews of the same shape. Functions release Python's lock while they
run, and may be called from several threads. Errors are fluxion.Error.

The library is looked for in $FLUXION_RUNTIME (a file), beside this file, in the lib folder of the
installation that this file lies in, and where the system looks."""

import array
import ctypes
import ctypes.util
import math
import operator
import os
import pathlib
import signal
import threading

__all__ = ["Error", "Cancelled", "Device", "Cancel", "Generator", "Vulkan", "VulkanDevice",
           "OPEN_CLASS", "devices", "version"]

OPEN_CLASS = -1

_MESSAGE_BYTES = 1020
_OK, _CANCELLED = 0, 6


class Error(Exception):
    """What the library said; `status` is its number, `status_name` its name."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.status_name = _library().fluxion_status_name(status).decode(errors="replace")

    def __reduce__(self):  # from another process, as multiprocessing sends it
        return type(self), (self.status, str(self))


def _name(value):
    """As C takes it: it would end at a zero byte, and name something else."""
    name = os.fsencode(value)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    return name


class Cancelled(Error):
    """A call was stopped through its Cancel, or by its progress function."""


class _Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int32), ("message", ctypes.c_char * _MESSAGE_BYTES)]


class _Sized(ctypes.Structure):
    """A structure that begins with its size."""

    def __init__(self, **values):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


class _DeviceInfo(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("kind", ctypes.c_char_p),
        ("driver", ctypes.c_char_p),
        ("refused", ctypes.c_char_p),
        ("memory_bytes", ctypes.c_uint64),
        ("preferred", ctypes.c_int32),
    ]


class _DeviceOptions(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("memory_budget", ctypes.c_uint64),
        ("kernel_cache", ctypes.c_char_p),
    ]


class _Memory(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("in_use", ctypes.c_uint64),
        ("kept", ctypes.c_uint64),
        ("peak", ctypes.c_uint64),
        ("budget", ctypes.c_uint64),
    ]


class _Info(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int64),
        ("elements", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("class_names", ctypes.POINTER(ctypes.c_char_p)),
        ("usual_classes", ctypes.POINTER(ctypes.c_int32)),
        ("usual_class_count", ctypes.c_int64),
        ("open_class", ctypes.c_int32),
        ("steps", ctypes.c_int64),
        ("evaluations", ctypes.c_double),
        ("weights", ctypes.c_uint64),
        ("free_guidance", ctypes.c_int64),
        ("guidance", ctypes.c_double),
    ]


_Progress = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_EachDevice = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_DeviceInfo))


class _Request(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("seed", ctypes.c_uint64),
        ("first", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("classes", ctypes.POINTER(ctypes.c_int32)),
        ("batch", ctypes.c_int64),
        ("progress", _Progress),
        ("progress_data", ctypes.c_void_p),
        ("cancel", ctypes.c_void_p),
        ("noise", ctypes.POINTER(ctypes.c_float)),
        ("set_guidance", ctypes.c_int64),
        ("guidance", ctypes.c_double),
    ]


_Lock = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Vulkan(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("get_instance_proc_addr", ctypes.c_void_p),
        ("instance", ctypes.c_void_p),
        ("physical_device", ctypes.c_void_p),
        ("api_version", ctypes.c_uint32),
        ("queue_family", ctypes.c_uint32),
        ("queue_index", ctypes.c_uint32),
        ("queue_is_unshared", ctypes.c_int32),
        ("lock", _Lock),
        ("unlock", _Lock),
        ("lock_data", ctypes.c_void_p),
        ("device", ctypes.c_void_p),
        ("device_info", ctypes.c_void_p),
    ]


class _VulkanNeed(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("structure", ctypes.c_char_p),
        ("required", ctypes.c_int32),
    ]


_EachNeed = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(_VulkanNeed))


class _VulkanTarget(_Sized):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("buffer", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("usage", ctypes.c_uint32),
        ("wait_semaphore", ctypes.c_uint64),
        ("wait_value", ctypes.c_uint64),
        ("signal_semaphore", ctypes.c_uint64),
        ("signal_value", ctypes.c_uint64),
    ]


_loaded = None


# ctypes would cut numbers off silently.
def _within(name, value, low, high):
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}, which is outside of {low} to {high}")
    return number


def _places():
    if "FLUXION_RUNTIME" in os.environ:
        yield os.environ["FLUXION_RUNTIME"]
        return
    # The name without a version first; packages often leave it to those who compile.
    names = ["libfluxion-runtime.so", "libfluxion-runtime.so.*", "libfluxion-runtime*.dylib",
             "fluxion-runtime.dll", "libfluxion-runtime*.dll"]
    here = pathlib.Path(__file__).resolve().parent
    folders = [here]
    if len(here.parents) >= 3:  # PREFIX/share/fluxion/python
        prefix = here.parents[2]
        folders += [prefix / "lib", prefix / "lib64",
                    *sorted((prefix / "lib").glob("*-linux-gnu*")), prefix / "bin"]
    for folder in folders:
        for name in names:
            yield from (str(found) for found in sorted(folder.glob(name)))
    found = ctypes.util.find_library("fluxion-runtime")
    if found:
        yield found


def _library():
    global _loaded
    if _loaded is not None:
        return _loaded
    place = next(_places(), None)
    if place is None:
        raise ImportError("libfluxion-runtime was not found; say where it is in FLUXION_RUNTIME")
    library = ctypes.CDLL(place)
    pointer, text, error = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_Error)
    out = ctypes.POINTER(pointer)
    request = ctypes.POINTER(_Request)
    signatures = {
        "fluxion_status_name": (text, [ctypes.c_int32]),
        "fluxion_version": (text, []),
        "fluxion_list_devices": (ctypes.c_int, [_EachDevice, pointer, error]),
        "fluxion_device_open": (
            ctypes.c_int, [text, ctypes.POINTER(_DeviceOptions), out, error]),
        "fluxion_device_close": (None, [pointer]),
        "fluxion_device_description": (text, [pointer]),
        "fluxion_device_memory": (ctypes.c_int, [pointer, ctypes.POINTER(_Memory), error]),
        "fluxion_device_trim": (ctypes.c_int, [pointer, error]),
        "fluxion_generator_open": (ctypes.c_int, [pointer, text, out, error]),
        "fluxion_generator_open_memory": (
            ctypes.c_int, [pointer, text, ctypes.c_size_t, out, error]),
        "fluxion_generator_close": (None, [pointer]),
        "fluxion_generator_info": (ctypes.c_int, [pointer, ctypes.POINTER(_Info), error]),
        "fluxion_generator_prepare": (
            ctypes.c_int, [pointer, ctypes.c_int64, ctypes.POINTER(ctypes.c_uint64), error]),
        "fluxion_cancel_create": (ctypes.c_int, [out, error]),
        "fluxion_cancel_request": (None, [pointer]),
        "fluxion_cancel_destroy": (None, [pointer]),
        "fluxion_generate": (ctypes.c_int, [pointer, request, pointer, ctypes.c_size_t, error]),
        "fluxion_noise": (ctypes.c_int, [pointer, request, pointer, ctypes.c_size_t, error]),
        "fluxion_generate_pixels": (
            ctypes.c_int, [pointer, request, pointer, ctypes.c_size_t, error]),
        "fluxion_vulkan_needs": (
            ctypes.c_int, [ctypes.POINTER(_Vulkan), _EachNeed, pointer, error]),
        "fluxion_device_from_vulkan": (
            ctypes.c_int,
            [ctypes.POINTER(_Vulkan), ctypes.POINTER(_DeviceOptions), out, error]),
        "fluxion_generate_to_vulkan": (
            ctypes.c_int, [pointer, request, ctypes.POINTER(_VulkanTarget), error]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    _loaded = library
    return library


_SIGNALS = tuple(signal.valid_signals())
_thread = threading.local()  # .call: the innermost _Call of a thread


class _Call:
    """A call of the library. What the functions raise that it calls back can't cross it, and is
    raised when it is over. A signal's handler may raise, too, as that of Ctrl-C does, and in the
    main thread it would before such a function has begun: so handlers wait for the end of the call,
    or for a progress function."""

    def __init__(self):
        self.raised = []
        self._handlers, self._signals = {}, []
        self.signals_wait = True

    def __enter__(self):
        if threading.get_ident() == threading.main_thread().ident:
            try:
                for number in _SIGNALS:
                    handler = signal.getsignal(number)
                    if callable(handler):
                        self._handlers[number] = handler
                        signal.signal(number, self._handle)
            except ValueError:  # not the main interpreter, which alone has signals
                pass
            except BaseException:  # of a handler that was not yet replaced
                self._restore_handlers()
                raise
        self._outer, _thread.call = getattr(_thread, "call", None), self

    def __exit__(self, *_):
        _thread.call = self._outer
        failures = self._restore_handlers()
        try:
            self.let_signals_in()
        except BaseException as failure:
            failures.append(failure)
        if failures:
            raise failures[0] from (self.raised[0] if self.raised else None)
        if self.raised:
            raise self.raised[0]

    def _restore_handlers(self):
        """Restores all of them, whatever those that are back raise meanwhile, which it returns."""
        failures = []
        for number, handler in self._handlers.items():
            while signal.getsignal(number) == self._handle:
                try:
                    signal.signal(number, handler)
                except BaseException as failure:
                    failures.append(failure)
        return failures

    def _handle(self, number, frame):
        if self.signals_wait:
            self._signals.append((number, frame))
        else:
            self._handlers[number](number, frame)

    def let_signals_in(self):
        """Runs the handlers of all signals that have waited, and raises what the first one raised
        that did."""
        self.signals_wait = False
        failures = []
        while self._signals:
            number, frame = self._signals.pop(0)
            try:
                self._handlers[number](number, frame)
            except BaseException as failure:
                failures.append(failure)
        if failures:
            raise failures[0]


def _called_back(function, answer=None):
    """For the library to call; `answer` is for where it raises."""
    def guarded(*arguments):
        try:
            return function(*arguments)
        except BaseException as failure:
            if getattr(_thread, "call", None) is None:  # a thread of the library's own
                raise
            _thread.call.raised.append(failure)
            return answer
    return guarded


def _call(name, *arguments):
    function, error = getattr(_library(), name), _Error()
    with _Call():
        status = function(*arguments, ctypes.byref(error))
    if status != _OK:
        kind = Cancelled if status == _CANCELLED else Error
        raise kind(status, error.message.decode(errors="replace"))


def _is_false(value):
    """False, or that of an array library; 0 is none: progress functions of C go on with it."""
    return isinstance(value, bool) and not value or (
        type(value).__name__ in ("bool", "bool_") and not value)


class _Handle:
    """Closes what it holds at the end of a `with`, at close(), or with its last reference. No call
    that uses it may be under way on another thread."""

    _close = None

    def __init__(self, name, *arguments):
        self._pointer, self._process = None, os.getpid()
        made = ctypes.c_void_p()
        try:
            _call(name, *arguments, ctypes.byref(made))
        finally:
            self._pointer = made if made else None

    def close(self):
        pointer, self._pointer = self._pointer, None  # first: close() may be called twice at once
        if pointer is not None and self._process == os.getpid():
            with _Call():
                getattr(_library(), self._close)(pointer)

    def __del__(self):
        if getattr(self, "_pointer", None) is not None:
            self.close()

    def __reduce_ex__(self, protocol):  # two owners would close it twice
        raise TypeError(f"a fluxion.{type(self).__name__} can't be copied or pickled")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def _open(self):
        if self._pointer is None:
            raise ValueError(type(self).__name__ + " is closed")
        if self._process != os.getpid():  # threads and GPUs do not go through a fork
            raise ValueError(f"this {type(self).__name__} was opened by another process; open one "
                             "in each")
        return self._pointer


def version():
    """That of the library: "0.1.0"."""
    return _library().fluxion_version().decode(errors="replace")


def devices():
    """The CPU and all GPUs of this machine, a dictionary each."""
    found = []

    def each(_, info):
        one = info.contents
        found.append({
            "name": one.name.decode(errors="replace"),
            "description": one.description.decode(errors="replace"),
            "kind": one.kind.decode(errors="replace"),
            "driver": one.driver.decode(errors="replace"),
            "refused": one.refused.decode(errors="replace"),
            "memory_bytes": one.memory_bytes,
            "preferred": bool(one.preferred),
        })

    _call("fluxion_list_devices", _EachDevice(_called_back(each)), None)
    return found


def _options(memory_budget, kernel_cache):
    return _DeviceOptions(memory_budget=_within("memory_budget", memory_budget, 0, 2**64 - 1),
                          kernel_cache=None if kernel_cache is None else _name(kernel_cache))


class Device(_Handle):
    """"cpu", "cpu:N" threads, "vulkan" or "vulkan:N". memory_budget: bytes, 0 for no limit.
    kernel_cache, of Vulkan: a folder, "" for none, None for the user's cache folder."""

    _close = "fluxion_device_close"

    def __init__(self, name="cpu", memory_budget=0, kernel_cache=None):
        options = _options(memory_budget, kernel_cache)
        super().__init__("fluxion_device_open", _name(name), ctypes.byref(options))

    @property
    def description(self):
        return _library().fluxion_device_description(self._open).decode(errors="replace")

    def memory(self):
        """Bytes: in_use, kept, peak and budget."""
        memory = _Memory()
        _call("fluxion_device_memory", self._open, ctypes.byref(memory))
        return {name: getattr(memory, name) for name in ("in_use", "kept", "peak", "budget")}

    def trim(self):
        """Gives memory that is kept for reuse back to the system."""
        _call("fluxion_device_trim", self._open)


def _address(handle):
    """Of a handle that is a pointer or a number, as ctypes, cffi and other bindings have them."""
    if isinstance(handle, int):
        return _within("a handle", handle, 0, 2**64 - 1)
    if isinstance(handle, ctypes._SimpleCData) and isinstance(handle.value, (int, type(None))):
        return handle.value or 0
    if isinstance(handle, (ctypes._Pointer, ctypes._CFuncPtr)):
        return ctypes.cast(handle, ctypes.c_void_p).value or 0
    if isinstance(handle, ctypes.Structure):
        return ctypes.addressof(handle)
    raise TypeError(f"a handle is a number or of ctypes, not {type(handle).__name__}")


class Vulkan:
    """Vulkan of the application's own. Handles are numbers (of cffi: int(ffi.cast("uintptr_t",
    handle))) or of ctypes: vkGetInstanceProcAddr, the VkInstance, the VkPhysicalDevice, and the
    apiVersion of the instance's VkApplicationInfo. All stay the application's."""

    def __init__(self, get_instance_proc_addr, instance, physical_device, api_version):
        self._held = (get_instance_proc_addr, instance, physical_device)
        self._members = {
            "get_instance_proc_addr": _address(get_instance_proc_addr),
            "instance": _address(instance),
            "physical_device": _address(physical_device),
            "api_version": _within("api_version", api_version, 0, 2**32 - 1),
        }

    def needs(self):
        """What a VkDevice should have enabled, before it is made, a dictionary each: its name, the
        structure of a feature ("": it is an extension), and whether it is required."""
        found = []

        def each(_, need):
            one = need.contents
            found.append({
                "name": one.name.decode(errors="replace"),
                "structure": one.structure.decode(errors="replace"),
                "required": bool(one.required),
            })

        _call("fluxion_vulkan_needs", ctypes.byref(_Vulkan(**self._members)),
              _EachNeed(_called_back(each)), None)
        return found


class VulkanDevice(Device):
    """A device that computes on the application's VkDevice, in one of its queues. device_info is
    the VkDeviceCreateInfo that it was made with. lock (with acquire and release, such as a
    threading.Lock) is held around each use of the queue; without one, nobody else uses the queue
    during a call. Close it, and its generators, before the VkDevice is destroyed."""

    def __init__(self, vulkan, device, device_info, queue_family=0, queue_index=0, lock=None,
                 memory_budget=0, kernel_cache=None):
        options = _options(memory_budget, kernel_cache)
        own = _Vulkan(queue_family=_within("queue_family", queue_family, 0, 2**32 - 1),
                      queue_index=_within("queue_index", queue_index, 0, 2**32 - 1),
                      queue_is_unshared=0 if lock else 1, device=_address(device),
                      device_info=_address(device_info), **vulkan._members)
        if lock:
            own.lock = _Lock(_called_back(lambda _: lock.acquire()))
            own.unlock = _Lock(_called_back(lambda _: lock.release()))
        self._own = (vulkan, own, device, device_info)  # what the library calls and reads
        _Handle.__init__(self, "fluxion_device_from_vulkan", ctypes.byref(own),
                         ctypes.byref(options))


class Cancel(_Handle):
    """Stops the calls that it was given to: request() from any thread."""

    _close = "fluxion_cancel_destroy"

    def __init__(self):
        super().__init__("fluxion_cancel_create")

    def request(self):
        _library().fluxion_cancel_request(self._open)


class Generator(_Handle):
    """A generator from a path, or from the bytes of a file, on a Device or one of that name
    (default: a CPU of its own). close() closes a device that it has opened, too."""

    _close = "fluxion_generator_close"

    def __init__(self, source, device=None):
        self._own_device = None
        if device is None or isinstance(device, str):
            device = self._own_device = Device(device or "cpu")
        self.device = device
        on = self.device._open
        if isinstance(source, (bytes, bytearray, memoryview)):
            held = bytes(source)
            super().__init__("fluxion_generator_open_memory", on, held, len(held))
        else:
            super().__init__("fluxion_generator_open", on, _name(source))
        info = _Info()
        _call("fluxion_generator_info", self._open, ctypes.byref(info))
        self.name = info.name.decode(errors="replace")
        self.shape = tuple(info.shape[i] for i in range(info.rank))
        self.is_image = info.channels > 0
        self.classes = info.classes
        names = info.class_names
        self.class_names = (
            [names[i].decode(errors="replace") for i in range(info.classes)] if names else [])
        self.usual_classes = [info.usual_classes[i] for i in range(info.usual_class_count)]
        self.open_class = bool(info.open_class)
        self.steps = info.steps
        self.evaluations = info.evaluations
        self.weight_bytes = info.weights
        self.guidance = info.guidance if info.free_guidance else None  # None: it is fixed
        self._elements = info.elements

    def close(self):
        super().close()
        if self._own_device is not None:
            self._own_device.close()

    def __del__(self):  # whoever else refers to the device keeps it
        if getattr(self, "_pointer", None) is not None:
            super().close()

    def prepare(self, batch):
        """Plans for batches of that size, and returns the bytes that one needs on the device."""
        needed = ctypes.c_uint64()
        _call("fluxion_generator_prepare", self._open, _within("batch", batch, 0, 2**31),
              ctypes.byref(needed))
        return needed.value

    def generate(self, count=1, seed=0, first=0, classes=None, batch=0, progress=None, cancel=None,
                 noise=None, guidance=None):
        """Samples first .. first + count of the seed, f32 [count, *shape]. classes: one for each
        sample (OPEN_CLASS leaves it open), one for all, or None for the usual ones in turn; a
        class is a number or a name of class_names, in any case.
        batch: samples that run together; 0: count, at most 64. progress(done, all) is called after
        each step; if it returns False, or `cancel` is requested, Cancelled is raised. noise: f32
        or f64 [count, *shape] to begin with in place of the seed's, as noise() returns it.
        guidance: the scale of guidance, of generators that leave it free (self.guidance is their
        own)."""
        return self._draw("fluxion_generate", ctypes.c_float, "f", count, seed, first, classes,
                          batch, progress, cancel, noise, guidance)

    def pixels(self, count=1, seed=0, first=0, classes=None, batch=0, progress=None, cancel=None,
               noise=None, guidance=None):
        """The same for images, as bytes 0 .. 255 [count, height, width, channels]."""
        return self._draw("fluxion_generate_pixels", ctypes.c_uint8, "B", count, seed, first,
                          classes, batch, progress, cancel, noise, guidance)

    def noise(self, count=1, seed=0, first=0):
        """What those samples begin with, f32 [count, *shape], N(0, 1) each."""
        return self._draw("fluxion_noise", ctypes.c_float, "f", count, seed, first, None, 0, None,
                          None, None, None)

    def generate_to(self, buffer, size, usage, offset=0, wait=None, signal=None, count=1, seed=0,
                    first=0, classes=None, batch=0, progress=None, cancel=None, noise=None,
                    guidance=None):
        """Draws what generate() draws into a VkBuffer, of the VkDevice of its VulkanDevice: into
        bytes offset .. offset + size. usage: the VkBufferUsageFlags that it was made with. wait and
        signal: (VkSemaphore, value) of timeline semaphores, or None; with `signal` it returns
        while the last batch is under way."""
        most = 2**64 - 1
        (wait_semaphore, wait_value), (signal_semaphore, signal_value) = (
            (_address(of[0]), _within("the value of a semaphore", of[1], 0, most)) if of else (0, 0)
            for of in (wait, signal))
        target = _VulkanTarget(
            buffer=_address(buffer), offset=_within("offset", offset, 0, most),
            size=_within("size", size, 0, most), usage=_within("usage", usage, 0, 2**32 - 1),
            wait_semaphore=wait_semaphore, wait_value=wait_value,
            signal_semaphore=signal_semaphore, signal_value=signal_value)
        request, held = self._request(count, seed, first, classes, batch, progress, cancel, noise,
                                      guidance)
        _call("fluxion_generate_to_vulkan", self._open, ctypes.byref(request),
              ctypes.byref(target))

    def _draw(self, function, kind, letter, count, seed, first, classes, batch, progress, cancel,
              noise, guidance):
        request, held = self._request(count, seed, first, classes, batch, progress, cancel, noise,
                                      guidance)
        numbers = count * self._elements
        values = (kind * max(numbers, 1))()
        _call(function, self._open, ctypes.byref(request), values, numbers)
        return _shaped(values, letter, numbers, (count, *self.shape))

    def _class(self, one):
        """The number of a class that is given by number or by name."""
        if not isinstance(one, str):
            return operator.index(one)
        if one in self.class_names:
            return self.class_names.index(one)
        alike = [i for i, name in enumerate(self.class_names) if name.lower() == one.lower()]
        if len(alike) == 1:
            return alike[0]
        if not self.class_names:
            raise ValueError(f"class {one!r}: this generator's classes have no names")
        named = ", ".join(self.class_names[:12])
        more = len(self.class_names) - 12
        raise ValueError(f"class {one!r}: the generator has the classes {named}"
                         + (f" and {more} more" if more > 0 else ""))

    def _request(self, count, seed, first, classes, batch, progress, cancel, noise, guidance):
        """A request, and what it points to."""
        for name, value, high in (("count", count, 2**37), ("seed", seed, 2**64 - 1),
                                  ("first", first, 2**37), ("batch", batch, 2**31)):
            _within(name, value, 0, high)
        held = []
        request = _Request(seed=seed, first=first, count=count, batch=batch)
        if classes is not None:
            try:
                chosen = [self._class(classes)] * count
            except TypeError:  # no single class; arrays of numpy seem to be one
                chosen = [self._class(one) for one in classes]
            if len(chosen) != count:
                raise ValueError(f"{len(chosen)} classes for {count} samples")
            for one in chosen:
                _within("a class", one, -2**31, 2**31 - 1)
            numbered = (ctypes.c_int32 * max(count, 1))(*chosen)
            request.classes = ctypes.cast(numbered, ctypes.POINTER(ctypes.c_int32))
            held.append(numbered)
        if progress is not None:
            def step(_, done, all_steps):
                call = _thread.call
                try:
                    call.let_signals_in()
                    result = progress(done, all_steps)
                finally:
                    call.signals_wait = True
                return 1 if _is_false(result) else 0
            request.progress = _Progress(_called_back(step, 1))
        if cancel is not None:
            request.cancel = cancel._open
        if guidance is not None:
            request.set_guidance, request.guidance = 1, guidance
        if noise is not None:
            numbers = count * self._elements
            given = _noise_bytes(memoryview(noise))
            if len(given) != numbers * ctypes.sizeof(ctypes.c_float):
                raise ValueError(f"{len(given)} bytes of noise for {numbers} numbers of f32, "
                                 f"which are {count} samples")
            start = (ctypes.c_float * max(numbers, 1)).from_buffer_copy(given or bytes(4))
            request.noise = ctypes.cast(start, ctypes.POINTER(ctypes.c_float))
            held.append(start)
        return request, held


def _noise_bytes(view):
    """Those of its numbers in f32."""
    if view.format in ("f", "<f", "B"):
        return view.tobytes()  # (arrays of no elements can't be cast)
    if view.format not in ("d", "<d"):
        raise ValueError(f"noise of format {view.format!r}: it is f32 or f64, or the bytes of f32")
    # What is computed of f32 is often f64, as x * numpy.cos(0.3) is since NumPy 2.
    rounded = array.array("f", array.array("d", view.tobytes()))
    if not all(map(math.isfinite, rounded)):
        raise ValueError("noise of f64 with a number that is not finite in f32")
    return rounded.tobytes()


def _shaped(values, letter, numbers, shape):
    try:
        import numpy
    except ImportError:
        flat = memoryview(values).cast("B")[:numbers * ctypes.sizeof(values._type_)]
        return flat.cast(letter, shape) if numbers > 0 else flat.cast(letter)
    return numpy.frombuffer(values, dtype=letter, count=numbers).reshape(shape)
