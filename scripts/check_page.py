#!/usr/bin/env python3
"""Opens the web page in headless Chromium, waits until it has drawn, and looks at what it drew.

  scripts/check_page.py FOLDER [PICTURE]

FOLDER holds the page (build/wasm/web) with a generator.fxn. PICTURE.png and PICTURE-phone.png become
screenshots. It needs chromium and chromium-driver, and nothing else.
"""

import base64
import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

PATIENCE = 120  # seconds
MOST_BYTES = 1_000_000  # of the WebAssembly


def serve(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map,
                          ".js": "text/javascript", ".wasm": "application/wasm"}

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                             functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Browser:
    """A session of chromedriver."""

    def __init__(self):
        try:
            self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE,
                                            text=True)
        except FileNotFoundError:
            raise SystemExit("check_page: there is no chromedriver (Debian's chromium-driver)")
        self._session = None
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                self._at = f"http://127.0.0.1:{line.rstrip().rstrip('.').split()[-1]}/session"
                break
        else:
            raise SystemExit("check_page: chromedriver did not start")
        threading.Thread(target=self._driver.stdout.read, daemon=True).start()
        arguments = ["--headless=new", "--disable-gpu", "--hide-scrollbars"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("--no-sandbox")
        made = self._ask("", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments}}}})
        self._session = made["sessionId"]

    def _ask(self, path, body=None, method="POST"):
        url = self._at + (f"/{self._session}" if self._session else "") + path
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"},
                                         method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return json.load(reply)["value"]

    def open(self, url):
        self._ask("/url", {"url": url})

    def size(self, width, height):
        self._ask("/window/rect", {"width": width, "height": height})

    def run(self, script):
        return self._ask("/execute/sync", {"script": script, "args": []})

    def choose_file(self, selector, path):
        found = self._ask("/element", {"using": "css selector", "value": selector})
        self._ask(f"/element/{next(iter(found.values()))}/value", {"text": os.path.abspath(path)})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self._ask("/screenshot", method="GET")))

    def close(self):
        if self._session:
            self._ask("", method="DELETE")
        self._driver.terminate()
        self._driver.wait()


DRAWN = "return document.documentElement.dataset.state === 'drawn'"
FAILED = "return document.documentElement.dataset.state === 'failed'"


def wait_for(browser, what, script, refused=False):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not refused and browser.run(FAILED):
            raise SystemExit("check_page: the page says: " + browser.run(
                "return document.getElementById('status').textContent"))
        if browser.run(script):
            return
        time.sleep(0.2)
    raise SystemExit(f"check_page: waited {PATIENCE} s in vain for {what}")


# The mean and the spread of the levels of every canvas.
LEVELS = """return [...document.querySelectorAll('canvas')].map(canvas => {
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const levels = [...data].filter((_, i) => i % 4 === 0);
  const mean = levels.reduce((a, b) => a + b, 0) / levels.length;
  return [mean, Math.sqrt(levels.reduce((a, b) => a + (b - mean) ** 2, 0) / levels.length)];
})"""


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    code = os.path.getsize(os.path.join(sys.argv[1], "fluxion-web.wasm"))
    if code > MOST_BYTES:
        raise SystemExit(f"check_page: fluxion-web.wasm has {code} bytes, more than {MOST_BYTES}")
    port = serve(sys.argv[1])
    browser = Browser()
    try:
        browser.size(1100, 900)
        start = time.monotonic()
        browser.open(f"http://127.0.0.1:{port}/index.html")
        wait_for(browser, "a drawing", DRAWN)
        first = time.monotonic() - start
        before = browser.run(LEVELS)
        flat = [i for i, (_, spread) in enumerate(before) if spread < 5]
        if len(before) < 2 or flat:
            raise SystemExit(f"check_page: of {len(before)} images, {flat} show nothing")
        if len(sys.argv) == 3:
            browser.screenshot(sys.argv[2] + ".png")
            browser.size(390, 844)
            time.sleep(0.5)
            wide = browser.run("return document.documentElement.scrollWidth > innerWidth")
            if wide:
                raise SystemExit("check_page: the page is wider than a phone")
            browser.screenshot(sys.argv[2] + "-phone.png")
        # Another seed draws other images.
        browser.run("""document.documentElement.dataset.state = '';
          document.getElementById('seed').value = 321;
          document.getElementById('seed').dispatchEvent(new Event('input'))""")
        wait_for(browser, "another drawing", DRAWN)
        if browser.run(LEVELS) == before:
            raise SystemExit("check_page: another seed draws the same images")
        # It walks, and stops.
        browser.run("document.getElementById('walk').click()")
        time.sleep(3)
        walked = float(browser.run("return document.getElementById('seed').value"))
        browser.run("document.getElementById('walk').click()")
        if walked <= 321:
            raise SystemExit("check_page: it does not walk")
        time_text = browser.run("return document.getElementById('time').textContent")
        # Where the page's own generator can't be loaded, a visitor can open another.
        browser.open(f"http://127.0.0.1:{port}/index.html?model=none.fxn")
        wait_for(browser, "a refusal", FAILED, refused=True)
        if not browser.run("""
          return document.querySelector('label.file').getClientRects().length > 0 &&
            document.getElementById('status').textContent.includes('none.fxn: 404')"""):
            raise SystemExit("check_page: without a generator, no file can be opened")
        browser.run("document.documentElement.dataset.state = ''")
        browser.choose_file("#file", os.path.join(sys.argv[1], "generator.fxn"))
        wait_for(browser, "a drawing of a visitor's file", DRAWN)
        if not browser.run("return document.getElementById('status').hidden"):
            raise SystemExit("check_page: a failure that is over is still told")
        print(f"check_page: {code} bytes, {len(before)} images, the first after {first:.2f} s; "
              + time_text)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
