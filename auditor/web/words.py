"""The words of the pages, in English and Russian, and how numbers, times and foreign text are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime

LANGUAGES = ("en", "ru")

_TEXTS: dict[str, tuple[str, str]] = {
    "title": ("RabbitMQ audit", "Аудит RabbitMQ"),
    "home": ("Overview", "Обзор"),
    "lost": ("Lost messages", "Потери"),
    "orders": ("Orders", "Заказы"),
    "status": ("Audit", "Аудит"),
    "data": ("Data", "Данные"),
    "search": ("Order or message id", "Заказ или сообщение"),
    "find": ("Find", "Найти"),
    "skip": ("Skip to content", "К содержанию"),
    "login": ("Log in", "Войти"),
    "logout": ("Log out", "Выйти"),
    "user": ("Name", "Имя"),
    "password": ("Password", "Пароль"),
    "wrong": ("Unknown name or wrong password.", "Неизвестное имя или неверный пароль."),
    "forbidden": ("You may not see this page", "Эта страница вам недоступна"),
    "forbidden_why": (
        "Your role is “{role}”; this page is for “{needed}”. Ask whoever runs the auditor.",
        "Ваша роль — «{role}», а страница — для роли «{needed}». Обратитесь к тому, кто отвечает за аудитор.",
    ),
    "nobody": ("none", "нет"),
    "not_found": ("Nothing found", "Ничего не найдено"),
    "nothing_of": (
        "The ledger knows no order and no message “{key}”. It may be mistyped, older than the ledger keeps, or never have"
        " passed the broker.",
        "В журнале нет ни заказа, ни сообщения «{key}». Возможно, номер введён с ошибкой, запись уже удалена по сроку или"
        " сообщение не проходило через брокер.",
    ),
    "error": ("This did not work", "Не получилось"),
    "too_long": (
        "The question took too long and was stopped. Narrow it, by time, flow or queue.",
        "Запрос выполнялся слишком долго и был остановлен. Сузьте его по времени, потоку или очереди.",
    ),
    "sound": ("The audit is sound", "Аудит в порядке"),
    "sound_why": ("Everything before {time} UTC has been seen.", "Просмотрено всё до {time} UTC."),
    "absent": ("No auditor is at work", "Аудитор не работает"),
    "absent_why": (
        "Its last sign of life is {age} old. What happened since is not known yet.",
        "Последний признак жизни — {age} назад. Что было с тех пор, пока неизвестно.",
    ),
    "apart": ("Not connected to the broker", "Нет связи с брокером"),
    "apart_why": ("The auditor runs but cannot see the messages.", "Аудитор работает, но не видит сообщений."),
    "behind": ("The audit is behind", "Аудит отстаёт"),
    "behind_why": ("It has yet to see what happened in the last {age}.", "Отставание — {age}."),
    "empty": ("No auditor has written to this ledger yet", "В этот журнал ещё ничего не записано"),
    "empty_why": ("Start the auditor; this page fills by itself.", "Запустите аудитор — страница заполнится сама."),
    "watermark": ("Seen until", "Просмотрено до"),
    "open_hops": ("On their way", "В пути"),
    "broker": ("Broker", "Брокер"),
    "problem": ("Problem", "Проблема"),
    "coverage": ("Time audited, last 24 hours", "Охват аудитом за последние 24 часа"),
    "audited": ("audited", "охвачено"),
    "began": ("the audit began {time} UTC", "аудит начат {time} UTC"),
    "gap": ("not audited", "не охвачено"),
    "before": ("before the audit began", "до начала аудита"),
    "gaps": ("Time that was not audited", "Когда аудита не было"),
    "no_gaps": ("No gaps in the last 24 hours.", "За последние 24 часа пропусков нет."),
    "no_gaps_ever": ("There has been none.", "Такого не было."),
    "now": ("now", "сейчас"),
    "lost_hours": ("Messages not delivered, last 12 hours", "Недоставленные сообщения за 12 часов"),
    "none_lost": ("None: every message arrived or is still in time.", "Нет: всё доставлено, или срок ещё не вышел."),
    "per_hour": ("by the hour of their publish", "по часам отправки"),
    "orders_now": ("Orders by stage", "Заказы по этапам"),
    "orders_none": ("No order is on its way.", "Заказов в пути нет."),
    "stuck_orders": ("Stuck orders", "Застрявшие заказы"),
    "stuck_none": ("No order is stuck.", "Застрявших заказов нет."),
    "stuck_only": ("only stuck ones", "только застрявшие"),
    "order": ("Order", "Заказ"),
    "message": ("Message", "Сообщение"),
    "stage": ("Stage", "Этап"),
    "system": ("System", "Система"),
    "in_stage": ("In stage for", "На этапе уже"),
    "longest": ("Longest", "Дольше всех"),
    "in_it": ("Orders", "Заказов"),
    "is_stuck": ("stuck", "застрял"),
    "stuck": ("Stuck", "Застряли"),
    "refreshes": ("This page refreshes itself.", "Страница обновляется сама."),
    "outdated": (
        "This page could not be refreshed: what it shows is old. Load it again.",
        "Страницу не удалось обновить: данные устарели. Загрузите её заново.",
    ),
    "utc": ("All times are UTC.", "Время везде указано по UTC."),
    "time": ("Time (UTC)", "Время (UTC)"),
    "event": ("What happened", "Что произошло"),
    "flow": ("Flow", "Поток"),
    "queue": ("Queue", "Очередь"),
    "vhost": ("Vhost", "Виртуальный хост"),
    "verdict": ("Verdict", "Вердикт"),
    "reason": ("Reason", "Причина"),
    "waited": ("Waited", "Ожидание"),
    "published": ("Published", "Отправлено"),
    "delivered": ("Delivered", "Доставлено"),
    "any": ("any", "все"),
    "since": ("Published since", "Отправлено с"),
    "since_hint": (
        "An age such as 2h or 7d, or a time such as 2026-03-01T12:00",
        "Возраст, например 2h или 7d, или время, например 2026-03-01T12:00",
    ),
    "bad_since": (
        "“{value}” is neither an age such as 2h nor a time such as 2026-03-01T12:00.",
        "Непонятно, что такое «{value}»: нужен возраст, например 2h, или время, например 2026-03-01T12:00.",
    ),
    "acknowledged": ("Acknowledged", "Разобрано"),
    "yes": ("yes", "да"),
    "no": ("no", "нет"),
    "show": ("Show", "Показать"),
    "clear": ("Clear filters", "Сбросить фильтры"),
    "csv": ("Download CSV", "Скачать CSV"),
    "older": ("Older", "Более ранние"),
    "lost_none": ("No message matches: nothing is stuck, lost, dead-lettered or unroutable here.",
                  "Ничего не найдено: застрявших, потерянных и недоставленных сообщений здесь нет."),
    "shown": ("{count} shown, newest first", "Показано: {count}, сначала новые"),
    "by": ("by {who}, {time}", "{who}, {time}"),
    "to_acknowledge": ("When this is dealt with:", "Когда это разобрано:"),
    "story": ("What happened", "Что произошло"),
    "picture": ("The order's messages on their way between the systems, from top to bottom in the order of time",
                "Сообщения заказа на пути между системами, сверху вниз по времени"),
    "queues": ("queue", "очередь"),
    "scale": ("waiting time: full width is {longest}", "время ожидания: вся ширина — {longest}"),
    "as_table": ("The same as a table", "То же таблицей"),
    "trace": ("Trace", "Трассировка"),
    "worst": ("Worst verdict", "Худший вердикт"),
    "messages": ("Messages", "Сообщений"),
    "first_seen": ("First seen", "Впервые замечен"),
    "last_seen": ("Last seen", "Замечен в последний раз"),
    "never_arrived": ("never arrived", "не дошло"),
    "not_arrived": ("not yet arrived", "ещё не дошло"),
    "after": ("after {age}", "через {age}"),
    "found": ("found", "установлено"),
    "publish_unseen": ("publish not seen", "отправка не замечена"),
    "here_since": ("nothing has happened since, for {age}", "с тех пор ничего не было, уже {age}"),
    "here_stuck": ("stuck, nothing has happened for {age}", "застрял, ничего не происходит уже {age}"),
    "skipped": ("Stages passed over: {count}, nothing was seen of them", "Пропущено этапов: {count}, сообщений о них не было"),
    "lasted": ("took {age}", "длился {age}"),
    "more_left": ("Only the first {count} are drawn and listed.", "Показаны только первые {count}."),
    "error_told": ("Error in the message", "Ошибка в сообщении"),
    "message_of": ("Messages with this id", "Сообщений с этим номером"),
    "exchange": ("Exchange", "Обменник"),
    "routing_key": ("Routing key", "Ключ маршрутизации"),
    "default_exchange": ("(default exchange)", "(обменник по умолчанию)"),
    "sender": ("Sending system", "Система-отправитель"),
    "user_id": ("User in the message", "Пользователь в сообщении"),
    "size": ("Size", "Размер"),
    "bytes": ("{count} bytes", "{count} байт"),
    "priority": ("Priority", "Приоритет"),
    "publisher": ("Published by", "Кем отправлено"),
    "node": ("Broker node", "Узел брокера"),
    "exactness": ("How exact the time is", "Точность времени"),
    "deadline": ("Deadline", "Срок"),
    "attempts": ("Deliveries seen", "Замечено доставок"),
    "judged": ("Verdict given", "Вердикт вынесен"),
    "no_hop": ("No delivery was expected of it.", "Доставки не ожидалось."),
    "no_deliveries": ("No delivery was seen.", "Доставок не замечено."),
    "consumer": ("Consumer", "Получатель"),
    "attempt": ("No.", "№"),
    "redelivered": ("Redelivered", "Повторно"),
    "blind": ("may have gone on unseen", "мог пойти дальше незаметно"),
    "from": ("From", "С"),
    "until": ("Until", "До"),
    "length": ("Length", "Длительность"),
    "missing": ("Publishes missing", "Пропущено отправок"),
    "completeness": ("Completeness", "Полнота"),
    "compared": ("the broker counted {counted}, the ledger has {seen}", "брокер насчитал {counted}, в журнале {seen}"),
    "not_compared": ("not compared with the broker's counters", "не сверено со счётчиками брокера"),
    "ago": ("{age} ago", "{age} назад"),
    "opened": ("not over", "продолжается"),
    "all_lost": ("All of them", "Все"),
}  # fmt: skip

_STATES: dict[str, tuple[str, str]] = {
    "in_flight": ("on its way", "в пути"),
    "delivered": ("delivered", "доставлено"),
    "late": ("delivered late", "доставлено с опозданием"),
    "stuck": ("stuck", "застряло"),
    "lost": ("lost", "потеряно"),
    "dead_lettered": ("dead-lettered", "в недоставленных"),
    "unroutable": ("unroutable", "некуда доставить"),
    "unknown": ("unknown", "неизвестно"),
}

# Said of a hop, and what somebody on call can do about it.
_REASONS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "waiting": (
        ("It waits in the queue past its deadline; the queue has consumers",
         "Ждёт в очереди дольше срока; получатели у очереди есть"),
        ("The consumer is slow or hangs: look at its log. The message is not gone.",
         "Получатель медлит или завис: посмотрите его журнал. Сообщение цело."),
    ),
    "no_consumer": (
        ("It waits in the queue, and the queue has no consumer", "Ждёт в очереди, а получателя у очереди нет"),
        ("Start the receiving service. The message is not gone and will be delivered.",
         "Запустите принимающий сервис. Сообщение цело и будет доставлено."),
    ),
    "queue_empty": (
        ("The queue is empty, and it was never delivered: it was purged, has expired, or was pushed out",
         "Очередь пуста, а доставки не было: её очистили, истёк срок жизни или сообщение вытеснили"),
        ("Have the sender send it again; ask who purged the queue, and look at its length limit and time to live.",
         "Попросите отправить его снова; узнайте, кто очищал очередь, проверьте её предел длины и срок жизни сообщений."),
    ),
    "overtaken": (
        ("A later message of the same queue was delivered, this one never was",
         "Более позднее сообщение той же очереди доставлено, а это — нет"),
        ("Have the sender send it again; look at the queue's length limit and time to live.",
         "Попросите отправить его снова; проверьте предел длины очереди и срок жизни сообщений."),
    ),
    "queue_missing": (
        ("The queue does not exist any more", "Очереди больше не существует"),
        ("Find out who deleted the queue; have it declared again, then have the message sent again.",
         "Узнайте, кто удалил очередь; после её восстановления попросите отправить сообщение снова."),
    ),
    "expired": (
        ("Its time to live ran out, and the broker moved it to a dead-letter queue",
         "Истёк срок жизни, и брокер переложил его в очередь недоставленных"),
        ("Look why nobody consumed it in time; take it from the dead-letter queue.",
         "Выясните, почему его не приняли вовремя; возьмите его из очереди недоставленных."),
    ),
    "rejected": (
        ("The consumer refused it, and the broker moved it to a dead-letter queue",
         "Получатель отказался от него, и брокер переложил его в очередь недоставленных"),
        ("The receiver's log says why. Mend the data, then send it again from the dead-letter queue.",
         "Причина — в журнале получателя. Исправьте данные и отправьте снова из очереди недоставленных."),
    ),
    "maxlen": (
        ("The queue was full, and the broker moved it to a dead-letter queue",
         "Очередь была полна, и брокер переложил его в очередь недоставленных"),
        ("The receiver is too slow, or the queue too short. Send it again from the dead-letter queue.",
         "Получатель не успевает или очередь коротка. Отправьте снова из очереди недоставленных."),
    ),
    "delivery_limit": (
        ("It was delivered too often without success, and the broker moved it away",
         "Слишком много неудачных доставок, и брокер убрал его"),
        ("The receiver fails at it again and again: its log says why.",
         "Получатель раз за разом не справляется с ним: причина — в его журнале."),
    ),
    "no_queue": (
        ("The broker found no queue for it: no binding matched its routing key",
         "Брокер не нашёл для него очереди: ни одна привязка не подошла к ключу"),
        ("Somebody has to bind a queue for this routing key, or mend the key; then have it sent again.",
         "Нужно привязать очередь к этому ключу или исправить ключ, затем отправить снова."),
    ),
    "blind": (
        ("The auditor could not see during its flight: nothing is claimed", "Аудитор в это время не видел сообщений, поэтому вывода нет"),
        ("Ask the receiver whether it has the message.", "Уточните у получателя, пришло ли сообщение."),
    ),
    "overflow": (
        ("The auditor's own queue overflowed during its flight: nothing is claimed",
         "Собственная очередь аудитора в это время переполнилась, поэтому вывода нет"),
        ("Ask the receiver whether it has the message.", "Уточните у получателя, пришло ли сообщение."),
    ),
    "queue_gone": (
        ("The auditor's own queue was gone during its flight: nothing is claimed",
         "Собственной очереди аудитора в это время не было, поэтому вывода нет"),
        ("Ask the receiver whether it has the message.", "Уточните у получателя, пришло ли сообщение."),
    ),
    "delayed": (
        ("It was held back on purpose, and not seen in a queue since: nothing is claimed",
         "Его намеренно задержали, и с тех пор ни в одной очереди не видели, поэтому вывода нет"),
        ("Ask the receiver whether it has the message.", "Уточните у получателя, пришло ли сообщение."),
    ),
    "transaction": (
        ("It was published in a transaction that may have been rolled back: nothing is claimed",
         "Отправлено в транзакции, которую могли откатить, поэтому вывода нет"),
        ("Ask the sender whether it meant to send it.", "Уточните у отправителя, должно ли оно было уйти."),
    ),
}  # fmt: skip

_EVENTS: dict[str, tuple[str, str]] = {
    "published": ("published", "отправлено"),
    "delivered": ("delivered", "доставлено"),
    "verdict": ("verdict", "вердикт"),
    "delivered without known publish": ("delivered, publish not seen", "доставлено, отправка не замечена"),
}

_GAPS: dict[str, tuple[str, str]] = {
    "first_start": ("before the first start", "до первого запуска"),
    "firehose_off": ("the firehose was off", "трассировка брокера была выключена"),
    "queue_gone": ("the trace queue was gone", "очередь трассировки пропадала"),
    "overflow": ("the trace queue overflowed", "очередь трассировки переполнилась"),
    "poison": ("an event could not be read", "событие не удалось прочитать"),
    "incomplete": ("the broker counted more than was seen", "брокер насчитал больше, чем было видно"),
    "ledger_damaged": ("the ledger was damaged", "журнал был повреждён"),
    "other_ledger": (
        "what was seen is in another ledger: this one was restored from a backup",
        "увиденное записано в другой журнал: этот восстановлен из копии",
    ),
    "blind": ("no trace events could be seen", "событий не было видно"),
}

_SOURCES: dict[str, tuple[str, str]] = {
    "arrival": ("when the auditor saw it, at once", "когда его увидел аудитор, без задержки"),
    "broker": ("written by the broker", "записано брокером"),
    "canary": ("approximate: published no later than this", "приблизительно: отправлено не позже этого"),
    "backlog": ("read after an absence: published before this", "прочитано после перерыва: отправлено раньше этого"),
}

_UNITS = {"en": ("ms", "s", "min", "h", "d"), "ru": ("мс", "с", "мин", "ч", "д")}
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Words:
    """The words of one language."""

    def __init__(self, language: str) -> None:
        """`language` is one of LANGUAGES."""
        self.language = language
        self._column = LANGUAGES.index(language)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Words:
        """Return those that the browser prefers."""
        return cls(preferred(headers.get("accept-language", "")))

    def __call__(self, key: str, /, **values: object) -> str:
        """Return a text, with its blanks filled in."""
        text = _TEXTS[key][self._column]
        return text.format(**values) if values else text

    def state(self, state: str | None) -> str:
        """Return a hop's state in words."""
        return self._of(_STATES, state)

    def reason(self, reason: str | None) -> str:
        """Return a reason as a sentence."""
        return _REASONS[reason][0][self._column] if reason in _REASONS else reason or ""

    def advice(self, reason: str | None) -> str:
        """Return what to do about a reason."""
        return _REASONS[reason][1][self._column] if reason in _REASONS else ""

    def event(self, event: str) -> str:
        """Return the event of a timeline in words."""
        return self._of(_EVENTS, event)

    def gap(self, reason: str) -> str:
        """Return a gap's reason in words."""
        return self._of(_GAPS, reason)

    def source(self, source: str | None) -> str:
        """Return how exact a publish time is."""
        return self._of(_SOURCES, source)

    def number(self, number: float | None) -> str:
        """Return a number with its thousands apart."""
        if number is None:
            return "–"
        return f"{number:,}".replace(",", "\u00a0" if self.language == "ru" else ",")

    def span(self, seconds: float | None) -> str:
        """Return a length of time, in two units at most."""
        if seconds is None:
            return "–"
        ms, s, minute, hour, day = _UNITS[self.language]
        sign, seconds = ("−" if seconds < 0 else ""), abs(seconds)
        if seconds < 1:
            shown = f"{seconds * 1000:.1f}" if seconds < 0.01 else f"{seconds * 1000:.0f}"
            return f"{sign}{self._decimal(shown)}\u00a0{ms}"
        if seconds < 60:
            return f"{sign}{self._decimal(f'{seconds:.1f}')}\u00a0{s}"
        minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
        if hours < 1:
            big, small = (minutes, minute), (int(seconds % 60) if minutes < 10 else 0, s)
        elif days < 1:
            big, small = (hours, hour), (minutes % 60, minute)
        else:
            big, small = (days, day), (hours % 24, hour)
        return sign + "\u00a0".join(f"{number}\u00a0{unit}" for number, unit in (big, small) if number)

    def share(self, share: float) -> str:
        """Return a share in percent, rounded down: all is said only of all."""
        percent = self._decimal(f"{int(share * 10_000) / 100:.2f}" if share < 1 else "100")
        return f"{percent}\u00a0%" if self.language == "ru" else f"{percent}%"

    def _decimal(self, text: str) -> str:
        return text.replace(".", ",") if self.language == "ru" else text

    def _of(self, table: Mapping[str, tuple[str, str]], word: str | None) -> str:
        return "" if word is None else table[word][self._column] if word in table else word


def preferred(accept: str) -> str:
    """Return the language that a browser's Accept-Language asks for; English where it asks for none that we have."""
    wishes = []
    for place, part in enumerate(accept.split(",")[:20]):
        name, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        wishes.append((-weight, place, name.strip().lower().partition("-")[0]))
    return next((name for weight, _, name in sorted(wishes) if name in LANGUAGES and weight < 0), "en")


def plain(text: object) -> str:
    """Return foreign text with control characters, and marks that turn its direction, made visible."""
    return re.sub(r"[^\x20-\x7e]", lambda match: _visible(match[0]), "" if text is None else str(text))


def _visible(character: str) -> str:
    if character in _BIDI or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\u{ord(character):04x}"
    return character


def clock(at: int | None, *, day: bool = True) -> str:
    """Return microseconds since the epoch as UTC, to the millisecond."""
    if at is None:
        return "–"
    try:
        text = datetime.fromtimestamp(at / 1e6, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):
        return str(at)
    return text if day else text.partition(" ")[2]
