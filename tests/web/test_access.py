"""Who may see what: roles, logins, trusted proxies, and the log of who looked at what."""

from __future__ import annotations

import json
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from datasette_auth_passwords.utils import hash_password

from tests.support.authority import Authority
from tests.web.browser import Browser
from tests.web.conftest import Serve, Served
from tests.web.test_pages import get

pytestmark = pytest.mark.timeout(120)

PASSWORD = "correct horse"
PROXIED = """[web]
proxies = ["127.0.0.1"]
"""


@pytest.fixture(scope="module")
def users() -> str:
    """Settings with a user for each role, called like it."""
    # few rounds: what is tested is not how slow the hash is
    hashed = hash_password(PASSWORD, iterations=1000)
    people = ", ".join(f'{role} = "{role}:{hashed}"' for role in ("viewer", "support", "admin"))
    return f"[web]\nusers = {{ {people} }}\n"


def log_in(browser: Browser, name: str, password: str = PASSWORD) -> None:
    browser.find("input[name=username]").send_keys(name)
    browser.find("input[name=password]").send_keys(password, "\ue007")


def test_who_logs_in_comes_to_what_was_asked_for(browser: Browser, ledger: Path, serve: Serve, users: str) -> None:
    pages = serve(ledger, users)
    wanted = f"{pages.url}/order?id=A-3"
    browser.open(wanted)
    assert "/-/login?" in browser.url
    assert "A-3" not in browser.find("main").text
    browser.screenshot("login-1200-light-en")
    log_in(browser, "support", "wrong")
    browser.wait(lambda: browser.all("[role=alert]"))
    log_in(browser, "support")
    browser.wait(lambda: browser.url == wanted)
    assert "lost" in browser.find("main").text
    assert browser.run("document.cookie") == ""  # no script could take it

    # not an admin: no SQL of one's own
    browser.open(pages.url + "/ledger?sql=select+1")
    assert "Your role is “support”; this page is for “admin”" in browser.text
    assert all("403" in complaint for complaint in browser.complaints())

    browser.find(".who button").click()
    browser.wait(lambda: browser.all("a.who"))
    browser.open(wanted)
    assert "/-/login?" in browser.url


def test_a_viewer_sees_how_it_stands_and_no_orders(browser: Browser, ledger: Path, serve: Serve, users: str) -> None:
    pages = serve(ledger, users)
    browser.open(pages.url)
    log_in(browser, "viewer")
    browser.wait(lambda: browser.all(".standing"))
    assert "A-3" not in browser.text
    assert browser.all("input[type=search]") == []
    for page in ("lost", "order?id=A-3", "lost.csv", "find?q=A-3", "ledger/lost.json", "access"):
        browser.open(f"{pages.url}/{page}")
        assert "You may not see this page" in browser.text, page
    browser.screenshot("refused-1200-light-en")
    assert all("403" in complaint for complaint in browser.complaints())


def test_only_an_admin_asks_with_sql(browser: Browser, ledger: Path, serve: Serve, users: str) -> None:
    pages = serve(ledger, users)
    browser.open(pages.url + "/ledger?sql=select+40%2B2+as+answer")
    log_in(browser, "admin")
    browser.wait(lambda: browser.all("table.rows-and-columns"))
    assert "42" in browser.find("table.rows-and-columns").text
    for statement in ("delete+from+gaps", "attach+'x.db'+as+x", "pragma+journal_mode%3Ddelete"):
        browser.open(f"{pages.url}/ledger?sql={statement}")
        assert "must be a SELECT" in browser.text or "not be a" in browser.text or "allowed" in browser.text, statement
    browser.complaints()


def test_where_to_go_after_the_login_cannot_be_elsewhere(ledger: Path, serve: Serve, users: str) -> None:
    pages = serve(ledger, users)
    for address in ("//evil.example", "https://evil.example", "/\\evil.example", "/ok\r\nset-cookie: x=y"):
        script = f"""
import http.cookiejar, urllib.parse, urllib.request, re
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, fp, code, msg, headers, newurl):
        print(headers["location"]); return None
opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), Stay)
url = {pages.url!r} + "/-/login?" + urllib.parse.urlencode({{"next": {address!r}}})
token = re.search('csrftoken" value="([^"]+)', opener.open(url).read().decode())[1]
form = {{"username": "admin", "password": {PASSWORD!r}, "csrftoken": token}}
try:
    opener.open(url, urllib.parse.urlencode(form).encode())
except urllib.error.HTTPError as error:
    pass
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == "/", done.stderr


def test_a_trusted_proxy_says_who_it_is(ledger: Path, serve: Serve) -> None:
    pages = serve(ledger, PROXIED)
    assert get(pages.url + "/lost")[0] == 403
    support = {"X-Forwarded-User": "olga", "X-Forwarded-Role": "support", "Host": "audit.example.com"}
    assert get(pages.url + "/lost", **support)[0] == 200
    assert get(pages.url + "/ledger?sql=select+1", **support)[0] == 403
    assert get(pages.url + "/ledger?sql=select+1", **(support | {"X-Forwarded-Role": "admin"}))[0] == 200
    assert get(pages.url + "/lost", **(support | {"X-Forwarded-Role": "root"}))[0] == 403


def test_nobody_else_may_say_who_they_are(ledger: Path, serve: Serve) -> None:
    pages = serve(ledger, '[web]\nproxies = ["192.0.2.1"]\n')
    assert get(pages.url + "/", **{"X-Forwarded-User": "olga", "X-Forwarded-Role": "admin"})[0] == 403


def test_who_looked_at_what_is_written_down(ledger: Path, serve: Serve, tmp_path: Path) -> None:
    table = tmp_path / "access.db"
    pages = serve(ledger, PROXIED + f'access_db = "{table}"\n')
    olga = {"X-Forwarded-User": "olga", "X-Forwarded-Role": "support"}
    get(pages.url + "/order?id=A-3", **olga)
    get(pages.url + "/ledger?sql=select+1", **olga)
    get(pages.url + "/static/style.css", **olga)
    shown = get(pages.url + "/access/access.json?_shape=array", **(olga | {"X-Forwarded-Role": "admin"}))
    assert shown[0] == 200
    pages.process.terminate()
    assert pages.process.wait(20) == 0
    expected = [
        ("olga", "support", "/order?id=A-3", 200),
        ("olga", "support", "/ledger?sql=select+1", 403),
        ("olga", "admin", "/access/access.json?_shape=array", 200),
    ]
    with sqlite3.connect(table) as conn:
        assert conn.execute("SELECT who, role, page, status FROM access ORDER BY id").fetchall() == expected
    conn.close()
    _wait_for(pages, len(expected))
    lines = [json.loads(line) for line in pages.log]
    assert [(line["who"], line["role"], line["page"], line["status"]) for line in lines] == expected


def test_with_tls_no_cookie_travels_in_the_clear(ledger: Path, serve: Serve, users: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "tests")
    cert, key = authority.sign("pages")
    pages = serve(ledger, f'{users}cert_file = "{cert}"\nkey_file = "{key}"\n')
    trust = ssl.create_default_context(cafile=str(authority.ca))
    login = pages.url.replace("127.0.0.1", "localhost") + "/-/login"
    assert login.startswith("https://")
    with urllib.request.urlopen(login, context=trust, timeout=30) as answer:
        cookies = answer.headers.get_all("set-cookie")
    assert cookies and all("Secure" in cookie and "HttpOnly" in cookie for cookie in cookies)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_without_a_login_it_serves_nobody_outside(ledger: Path, listen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "auditor.cli", "web", "--ledger", str(ledger), "--listen", listen],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "whoever reaches this address could read every order" in done.stderr


def _wait_for(pages: Served, lines: int) -> None:
    end = time.monotonic() + 10
    while len(pages.log) < lines and time.monotonic() < end:
        time.sleep(0.05)
