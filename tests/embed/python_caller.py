"""What tests/embed/test_wrappers.cpp runs: tiny.fxn and the samples expected of it lie here."""

import array
import copy
import math
import os
import pickle
import signal
import threading
import warnings

import fluxion

from raised import raised


def floats(samples):
    return samples.tobytes()


expected = open("expected", "rb").read()
assert fluxion.version().count(".") == 2
assert fluxion.devices()[0]["name"] == "cpu"
with fluxion.Device("cpu:1", memory_budget=2**30, kernel_cache="") as device:
    assert "1 thread" in device.description
    with fluxion.Generator("tiny.fxn", device) as tiny:
        assert tiny.name == "tiny images" and tiny.shape == (4, 4, 1) and tiny.is_image
        assert tiny.classes == 3 and tiny.class_names[2] == "\u00e9toile"
        assert tiny.usual_classes == [2, 0] and tiny.open_class and tiny.steps == 2
        classes = [0, fluxion.OPEN_CLASS, 2]
        samples = tiny.generate(count=3, seed=4, classes=classes)
        assert samples.shape == (3, 4, 4, 1) and floats(samples) == expected
        memory = fluxion.Generator(open("tiny.fxn", "rb").read(), device)
        assert floats(memory.generate(count=3, seed=4, classes=classes)) == expected
        pixels = tiny.pixels(count=2, seed=2**64 - 1, classes=1)
        assert pixels.shape == (2, 4, 4, 1) and len(pixels.tobytes()) == 32
        one = tiny.generate(count=2, seed=4, classes=[1, 1])
        assert floats(tiny.generate(count=2, seed=4, classes=1)) == floats(one)
        assert floats(tiny.generate(count=2, seed=4, classes="A Square one")) == floats(one)
        assert floats(tiny.generate(count=2, seed=4, classes=["a square one", 1])) == floats(one)
        assert floats(tiny.generate(count=3, seed=4, classes=["a round one", -1, "\u00c9toile"])) == expected
        wrong = raised(lambda: tiny.generate(classes=["apple"]), ValueError)
        assert str(wrong) == ("class 'apple': the generator has the classes "
                              "a round one, a square one, \u00e9toile")
        noise = tiny.noise(2, 4)
        assert floats(tiny.generate(count=2, seed=4, noise=noise, classes=1)) == floats(one)
        noise64 = array.array("d", memoryview(noise.tobytes()).cast("f"))
        assert floats(tiny.generate(count=2, noise=noise64, classes=1)) == floats(one)
        for far in (1e39, -math.inf, math.nan):
            noise64[7] = far
            assert "f64" in str(raised(lambda: tiny.generate(count=2, noise=noise64), ValueError))
        raised(lambda: tiny.generate(noise=noise64), ValueError)  # of two samples
        raised(lambda: tiny.generate(noise=array.array("i", [0] * 16)), ValueError)
        try:
            import numpy
            classes_array = numpy.array([1, 1])
            assert isinstance(one, numpy.ndarray) and one.dtype == numpy.float32
            assert floats(tiny.generate(count=2, seed=4, classes=classes_array)) == floats(one)
            x, y = tiny.noise(seed=4), tiny.noise(seed=4, first=1)
            between = x * numpy.cos(0.3) + y * numpy.sin(0.3)  # f64 since NumPy 2
            assert (floats(tiny.generate(noise=between, classes=1)) ==
                    floats(tiny.generate(noise=between.astype(numpy.float32), classes=1)))
            assert "format" in str(raised(
                lambda: tiny.generate(noise=numpy.zeros(16, numpy.int32)), ValueError))
            raised(lambda: tiny.generate(progress=lambda *_: numpy.bool_(False)), fluxion.Cancelled)
            none = numpy.zeros((0, 4, 4, 1), numpy.float32)
            assert len(tiny.generate(count=0, noise=none).tobytes()) == 0
        except ImportError:
            pass
        raised(lambda: tiny.generate(classes=[1.5]), TypeError)
        raised(lambda: tiny.generate(noise=bytes(8)), ValueError)
        # ctypes would draw class 2, set no limit, and plan for a batch of 2.
        raised(lambda: tiny.generate(classes=2**32 + 2), ValueError)
        raised(lambda: tiny.generate(classes=[-2**32]), ValueError)
        raised(lambda: fluxion.Device("cpu:1", memory_budget=2**64), ValueError)
        raised(lambda: tiny.prepare(2**64 + 2), ValueError)
        raised(lambda: fluxion.Vulkan(1, 2, 3, 2**32 + 1), ValueError)
        raised(lambda: fluxion.Vulkan(2**64 + 1, 2, 3, 4), ValueError)
        tiny.generate(progress=lambda *_: 0)  # as in C, where anything else stops
        assert len(tiny.generate(count=0).tobytes()) == 0
        assert tiny.prepare(2) > tiny.weight_bytes
        assert device.memory()["budget"] == 2**30
        device.trim()
        assert device.memory()["kept"] == 0

        assert raised(lambda: tiny.generate(classes=7)).status_name == "invalid argument"
        assert tiny.guidance is None
        assert "--free-guidance" in str(raised(lambda: tiny.generate(guidance=2)))
        raised(lambda: tiny.generate(seed=-1), ValueError)
        raised(lambda: tiny.generate(count=2, classes=[1]), ValueError)
        done = []
        stopped = raised(
            lambda: tiny.generate(count=9, batch=1, progress=lambda n, _: done.append(n) or n < 4),
            fluxion.Cancelled)
        assert done == [1, 2, 3, 4] and "step 4 of 18" in str(stopped)
        raised(lambda: tiny.generate(progress=lambda n, all_steps: n / 0), ZeroDivisionError)
        # A handler's exception arrives as itself, whenever its signal comes: mostly while the
        # library is at work, so that it is due where the progress function begins.
        def too_late(*_):
            raise TimeoutError
        for number, handler, kind in (
                (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
                (signal.SIGALRM, too_late, TimeoutError)):
            before = signal.signal(number, handler)
            for progress in [lambda *_: None] * 10 + [lambda *_: tiny.generate(),
                                                      lambda *_: threading.Event().wait(60)]:
                timer = threading.Timer(0.02, os.kill, (os.getpid(), number))
                timer.start()
                raised(lambda: tiny.generate(count=2**18, batch=1, progress=progress), kind)
                timer.join()
            assert signal.getsignal(number) is handler
            signal.signal(number, before)
        # Of two signals in one call, the second one's handler runs although the first one's raises.
        ended = []
        before = [signal.signal(signal.SIGINT, signal.default_int_handler),
                  signal.signal(signal.SIGTERM, lambda *_: ended.append(1))]
        def interrupted_twice():
            with fluxion._Call():
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Event().wait(0.01)
        raised(interrupted_twice, KeyboardInterrupt)
        assert ended == [1]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
        cancel = fluxion.Cancel()
        other = threading.Thread(target=cancel.request)
        other.start()
        other.join()
        raised(lambda: tiny.generate(cancel=cancel), fluxion.Cancelled)

        found = [None] * 4
        def draw(i):
            found[i] = floats(tiny.generate(count=3, seed=4, classes=classes))
        threads = [threading.Thread(target=draw, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 4
    raised(lambda: tiny.generate(), ValueError)
tiny.close()
# As it is installed, and beside the library of a version.
place = os.environ.pop("FLUXION_RUNTIME")
here = fluxion.__file__
fluxion.__file__ = os.path.abspath("prefix/share/fluxion/python/fluxion.py")
for folder, library in (("prefix/share/fluxion/python", "libfluxion-runtime.so.0.1"),
                        ("prefix/lib64", "libfluxion-runtime.so.0.1"),
                        ("prefix/bin", "libfluxion-runtime.dll")):
    os.makedirs(folder)
    found = os.path.abspath(os.path.join(folder, library))
    os.symlink(place, found)
    assert found in fluxion._places(), list(fluxion._places())
fluxion.__file__ = here
os.environ["FLUXION_RUNTIME"] = place
assert raised(lambda: fluxion.Generator("none.fxn")).status_name == "cannot read"
assert raised(lambda: fluxion.Generator(b"x")).status_name == "bad file"
assert raised(lambda: fluxion.Device("nothing")).status_name == "invalid argument"
with fluxion.Generator("tiny.fxn", "cpu:1") as tiny:
    assert "1 thread" in tiny.device.description
    assert floats(tiny.generate(count=3, seed=4, classes=classes)) == expected
raised(lambda: tiny.device.memory(), ValueError)  # closed with the generator that has opened it
assert "there are cpu" in str(raised(lambda: fluxion.Generator("tiny.fxn", "nothing")))
error = raised(lambda: fluxion.Generator("none.fxn"))
for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
    assert (type(other), other.status, str(other)) == (fluxion.Error, error.status, str(error))
with fluxion.Device("cpu:1") as device:
    for handle in (device, fluxion.Cancel()):
        for again in (copy.copy, copy.deepcopy, pickle.dumps):
            raised(lambda: again(handle), TypeError)
# A child of a fork has none of the threads, and gives nothing back; its parent goes on.
with fluxion.Generator("tiny.fxn", "cpu:3") as tiny:
    tiny.generate(count=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # later versions warn of threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            assert "another process" in str(raised(lambda: tiny.generate(), ValueError))
            tiny.close()
            with fluxion.Generator("tiny.fxn", "cpu:3") as own:
                assert floats(own.generate(count=3, seed=4, classes=classes)) == expected
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert floats(tiny.generate(count=3, seed=4, classes=classes)) == expected
raised(lambda: fluxion.Generator("tiny.fxn\0nothing"), ValueError)
raised(lambda: fluxion.Device("cpu:1\0x"), ValueError)
print("it draws, reports and raises")
