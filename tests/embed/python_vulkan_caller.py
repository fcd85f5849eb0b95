"""What tests/embed/test_wrappers.cpp runs: an application with a VkDevice and a VkBuffer of its own,
made through ctypes on a software device. tiny.fxn lies here."""

import ctypes
import sys
import threading

import fluxion

from raised import raised

U32, U64, POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
VK_API_VERSION_1_2 = 1 << 22 | 2 << 12
TRANSFER_DST = 2


def structure(kind, *fields):
    """A class of Vulkan's structures, which know what they are."""
    class Made(ctypes.Structure):
        _fields_ = [("sType", U32), ("pNext", POINTER), *fields]

        def __init__(self, **values):
            super().__init__(sType=kind, **values)
    return Made


ApplicationInfo = structure(
    0, ("name", POINTER), ("version", U32), ("engine", POINTER), ("engine_version", U32),
    ("api_version", U32))
InstanceInfo = structure(
    1, ("flags", U32), ("application", POINTER), ("layers", U32), ("layer_names", POINTER),
    ("extensions", U32), ("extension_names", POINTER))
QueueInfo = structure(
    2, ("flags", U32), ("family", U32), ("count", U32), ("priorities", POINTER))
DeviceInfo = structure(
    3, ("flags", U32), ("queues", U32), ("queue_infos", POINTER), ("layers", U32),
    ("layer_names", POINTER), ("extensions", U32), ("extension_names", POINTER),
    ("features", POINTER))
AllocateInfo = structure(5, ("size", U64), ("type", U32))
SemaphoreInfo = structure(9, ("flags", U32))
BufferInfo = structure(
    12, ("flags", U32), ("size", U64), ("usage", U32), ("sharing", U32), ("families", U32),
    ("family_list", POINTER))
TimelineFeatures = structure(1000207000, ("timelineSemaphore", U32))
SemaphoreType = structure(1000207002, ("type", U32), ("value", U64))
WaitInfo = structure(
    1000207004, ("flags", U32), ("count", U32), ("semaphores", POINTER), ("values", POINTER))
SignalInfo = structure(1000207005, ("semaphore", U64), ("value", U64))


class Requirements(ctypes.Structure):
    _fields_ = [("size", U64), ("alignment", U64), ("types", U32)]


try:
    vk = ctypes.CDLL("libvulkan.so.1")
except OSError:
    print("there is no software device")
    sys.exit()


def done(function, *arguments):
    result = getattr(vk, function)(*arguments)
    assert result == 0, f"{function}: {result}"


application_info = ApplicationInfo(api_version=VK_API_VERSION_1_2)
instance_info = InstanceInfo(application=ctypes.addressof(application_info))
instance = POINTER()
if vk.vkCreateInstance(ctypes.byref(instance_info), None, ctypes.byref(instance)) != 0:
    print("there is no software device")
    sys.exit()
count = U32(16)
found = (POINTER * 16)()
done("vkEnumeratePhysicalDevices", instance, ctypes.byref(count), found)
physical = None
for each in found[:count.value]:
    properties = (U32 * 1024)()  # VkPhysicalDeviceProperties: the fifth is the type
    vk.vkGetPhysicalDeviceProperties(POINTER(each), properties)
    if properties[4] == 4:
        physical = POINTER(each)
        break
if physical is None:
    print("there is no software device")
    sys.exit()

vulkan = fluxion.Vulkan(vk.vkGetInstanceProcAddr, instance, physical, VK_API_VERSION_1_2)
needs = {need["name"]: need for need in vulkan.needs()}
assert needs["timelineSemaphore"]["required"]
assert "Timeline" in needs["timelineSemaphore"]["structure"]
assert any(not need["required"] for need in needs.values())

priority = ctypes.c_float(1)
queue = QueueInfo(family=0, count=1, priorities=ctypes.addressof(priority))


def make_device(timeline):
    features = TimelineFeatures(timelineSemaphore=timeline)
    info = DeviceInfo(pNext=ctypes.addressof(features), queues=1,
                      queue_infos=ctypes.addressof(queue))
    info.held = features
    device = POINTER()
    done("vkCreateDevice", physical, ctypes.byref(info), None, ctypes.byref(device))
    return device, info


without, without_info = make_device(0)
refused = raised(lambda: fluxion.VulkanDevice(vulkan, without, without_info))
assert refused.status_name == "no device" and "timelineSemaphore" in str(refused), str(refused)
vk.vkDestroyDevice(without, None)

device, device_info = make_device(1)
BYTES = 4096
buffer, memory, mapped, semaphore = U64(), U64(), POINTER(), U64()
done("vkCreateBuffer", device, ctypes.byref(BufferInfo(size=BYTES, usage=TRANSFER_DST)), None,
     ctypes.byref(buffer))
needed = Requirements()
vk.vkGetBufferMemoryRequirements(device, buffer, ctypes.byref(needed))
types = (U32 * 256)()  # VkPhysicalDeviceMemoryProperties: a number, then flags and heap of each
vk.vkGetPhysicalDeviceMemoryProperties(physical, types)
visible = [i for i in range(types[0]) if needed.types >> i & 1 and types[1 + 2 * i] & 6 == 6]
done("vkAllocateMemory", device, ctypes.byref(AllocateInfo(size=needed.size, type=visible[0])), None,
     ctypes.byref(memory))
done("vkBindBufferMemory", device, buffer, memory, U64(0))
done("vkMapMemory", device, memory, U64(0), U64(BYTES), U32(0), ctypes.byref(mapped))
timeline = SemaphoreType(type=1, value=0)
done("vkCreateSemaphore", device,
     ctypes.byref(SemaphoreInfo(pNext=ctypes.addressof(timeline))), None, ctypes.byref(semaphore))


def content(begin, end):
    return ctypes.string_at(mapped.value + begin, end - begin)


def wait(value):
    wanted = U64(value)
    done("vkWaitSemaphores", device,
         ctypes.byref(WaitInfo(count=1, semaphores=ctypes.addressof(semaphore),
                               values=ctypes.addressof(wanted))), U64(60 * 10**9))


class CountingLock:
    def __init__(self):
        self.lock, self.uses, self.failure = threading.Lock(), 0, None

    def acquire(self):
        if self.failure:
            raise self.failure
        assert self.lock.acquire(timeout=60)
        self.uses += 1

    def release(self):
        if not self.failure:
            self.lock.release()


ctypes.memset(mapped.value, 0, BYTES)
lock = CountingLock()
with fluxion.VulkanDevice(vulkan, device, device_info, lock=lock, kernel_cache="") as on:
    with fluxion.Generator("tiny.fxn", on) as tiny:
        expected = tiny.generate(count=3, seed=4, classes=[0, fluxion.OPEN_CLASS, 2]).tobytes()
        with fluxion.Generator("tiny.fxn") as on_cpu:
            near = memoryview(on_cpu.generate(count=3, seed=4, classes=[0, fluxion.OPEN_CLASS, 2])
                              .tobytes()).cast("f")
        assert all(abs(a - b) < 1e-4 for a, b in zip(memoryview(expected).cast("f"), near))
        size = len(expected)
        # Nothing is written before the wait is over, and nothing beside the samples.
        tiny.generate_to(buffer, size, TRANSFER_DST, offset=64, wait=(semaphore, 1),
                         signal=(semaphore, 2), count=3, seed=4,
                         classes=[0, fluxion.OPEN_CLASS, 2])
        assert content(0, BYTES) == bytes(BYTES)
        done("vkSignalSemaphore", device,
             ctypes.byref(SignalInfo(semaphore=semaphore.value, value=1)))
        wait(2)
        assert content(64, 64 + size) == expected
        assert content(0, 64) == bytes(64)
        assert content(64 + size, BYTES) == bytes(BYTES - 64 - size)
        # Without semaphores it returns when they are there; handles may be numbers.
        tiny.generate_to(buffer.value, BYTES - 2048, TRANSFER_DST, offset=2048, count=1, seed=4,
                         classes=0)
        assert content(2048, 2048 + size // 3) == expected[:size // 3]
        assert lock.uses > 2 and not lock.lock.locked()

        small = raised(lambda: tiny.generate_to(buffer, size - 1, TRANSFER_DST, count=3))
        assert small.status_name == "invalid argument" and "don't fit" in str(small)
        assert "TRANSFER_DST" in str(raised(lambda: tiny.generate_to(buffer, size, 32)))
        raised(lambda: tiny.generate_to(buffer, -1, TRANSFER_DST), ValueError)
        raised(lambda: tiny.generate_to("buffer", size, TRANSFER_DST), TypeError)
        raised(lambda: tiny.generate_to(buffer, BYTES, TRANSFER_DST, count=9, batch=1,
                                        progress=lambda n, _: n < 4), fluxion.Cancelled)
        raised(lambda: tiny.generate_to(buffer, BYTES, TRANSFER_DST,
                                        progress=lambda n, _: n / 0), ZeroDivisionError)
        lock.failure = TimeoutError("the queue is busy")
        assert raised(lambda: tiny.generate(), TimeoutError) is lock.failure
        lock.failure = None
        assert tiny.generate(count=3, seed=4, classes=[0, -1, 2]).tobytes() == expected
with fluxion.Generator("tiny.fxn") as on_cpu:
    other = raised(lambda: on_cpu.generate_to(buffer, BYTES, TRANSFER_DST))
    assert other.status_name == "invalid argument" and "no Vulkan device" in str(other)
with fluxion.VulkanDevice(vulkan, device.value, ctypes.pointer(device_info), kernel_cache="") as on:
    assert fluxion.Generator("tiny.fxn", on).generate(count=3, seed=4, classes=[0, -1, 2]).tobytes() \
        == expected

vk.vkDestroySemaphore(device, semaphore, None)
vk.vkDestroyBuffer(device, buffer, None)
vk.vkFreeMemory(device, memory, None)
vk.vkDestroyDevice(device, None)
vk.vkDestroyInstance(instance, None)
print("it draws into the application's buffer")
