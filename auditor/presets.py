"""Presets: where the messages of a library carry what the auditor looks for.

A preset is a list of sources for each field, in the words of the settings. A flow's own lists take its place field by
field. Two rules hold for all of them:

- A correlation id is never taken for an order id: Spring's request/reply counts with it, EasyNetQ makes a new one for
  each message, Celery puts the task's id there. A wrong order id joins what does not belong together; none is better.
- The message's type is a stage only where the flow's `stages` translates it (`types` below).

The property `user_id` comes last among the users: the broker makes sure that it is the user of the connection, and so
it names a system more often than a person (https://www.rabbitmq.com/docs/validated-user-id).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PresetName = Literal["generic", "spring-amqp", "masstransit", "nservicebus", "easynetq", "celery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The sources of each field, in order; the first that holds something is taken."""

    message_id: tuple[str, ...]
    order_id: tuple[str, ...]
    stage: tuple[str, ...]
    user_id: tuple[str, ...]
    error: tuple[str, ...]
    types: tuple[str, ...] = ()  # the message's type, a stage only if the flow's `stages` translates it


_ORDER_HEADERS = tuple(f"header:{name}" for name in ("x-order-id", "order_id", "orderId", "order-id"))
_STAGE_HEADERS = tuple(f"header:{name}" for name in ("x-stage", "stage"))
_USER_HEADERS = tuple(f"header:{name}" for name in ("x-user-id", "user_id", "userId", "user-id"))
_ERROR_HEADERS = ("header:x-exception-message", "header:x-error")


def _order_in(body: str = "") -> tuple[str, ...]:
    return tuple(f"body:{body}{name}" for name in ("orderId", "order_id", "order.id"))


def _stage_in(body: str = "") -> tuple[str, ...]:
    return tuple(f"body:{body}{name}" for name in ("stage", "status"))


def _user_in(body: str = "") -> tuple[str, ...]:
    return tuple(f"body:{body}{name}" for name in ("userId", "user_id", "user.id"))


# The names that .NET serializers write by default: those of the class's members.
_ORDER_IN_DOTNET = ("body:OrderId", "body:Order.Id")
_STAGE_IN_DOTNET = ("body:Stage", "body:Status")
_USER_IN_DOTNET = ("body:UserId", "body:User.Id")

# `error` before `error.message` would be the same: a table is no value.
_ERROR_IN_BODY = ("body:error.message", "body:error")

PRESETS: dict[PresetName, Preset] = {
    "generic": Preset(
        message_id=("property:message_id",),
        order_id=_ORDER_HEADERS + _order_in(),
        stage=_STAGE_HEADERS + _stage_in(),
        user_id=(*_USER_HEADERS, *_user_in(), "property:user_id"),
        error=_ERROR_HEADERS + _ERROR_IN_BODY,
    ),
    # Jackson2JsonMessageConverter writes the object as the body, application/json, and its class into the header
    # __TypeId__. The property message_id is set only with `createMessageIds`. A message that a
    # RepublishMessageRecoverer gave up keeps its body and headers and gains x-exception-message,
    # x-exception-stacktrace, x-original-exchange and x-original-routingKey.
    # https://docs.spring.io/spring-amqp/reference/amqp/message-converters.html
    # https://docs.spring.io/spring-amqp/api/org/springframework/amqp/rabbit/retry/RepublishMessageRecoverer.html
    "spring-amqp": Preset(
        message_id=("property:message_id",),
        order_id=_ORDER_HEADERS + _order_in(),
        stage=_STAGE_HEADERS + _stage_in(),
        user_id=(*_USER_HEADERS, *_user_in(), "property:user_id"),
        error=("header:x-exception-message", *_ERROR_IN_BODY),
        types=("header:__TypeId__",),
    ),
    # The body is an envelope (application/vnd.masstransit+json) with messageId, correlationId, messageType (a list of
    # `urn:message:Namespace:Type`), headers and the message itself, in camel case; the property message_id repeats
    # messageId. The raw JSON serializer has no envelope and uses the headers MessageId and MT-MessageType. A message
    # moved to an _error queue gains MT-Fault-Message; a published Fault<T> has `exceptions`, and what failed in
    # `message`.
    # https://masstransit.io/documentation/configuration/serialization
    # https://masstransit.io/documentation/concepts/exceptions
    "masstransit": Preset(
        message_id=("property:message_id", "header:MessageId", "body:messageId"),
        order_id=_ORDER_HEADERS + _order_in("message.") + _order_in("message.message.") + _order_in(),
        stage=_STAGE_HEADERS + _stage_in("message.") + _stage_in(),
        user_id=(*_USER_HEADERS, *_user_in("message."), *_user_in(), "property:user_id"),
        error=(
            "header:MT-Fault-Message",
            "body:message.exceptions[0].message",
            "body:message.error.message",
            "body:message.error",
        ),
        types=("body:messageType[0]", "header:MT-MessageType"),
    ),
    # The transport copies NServiceBus.MessageId into the property message_id, and the first of the enclosed types
    # into the property type; the headers are AMQP headers of the same names. The body is what the serializer makes of
    # the message: JSON in the names of its class, or XML, which is not looked into. A message in the error queue has
    # NServiceBus.ExceptionInfo.*.
    # https://docs.particular.net/nservicebus/messaging/headers
    # https://docs.particular.net/transports/rabbitmq/native-integration
    "nservicebus": Preset(
        message_id=("property:message_id", "header:NServiceBus.MessageId"),
        order_id=_ORDER_HEADERS + _ORDER_IN_DOTNET + _order_in(),
        stage=_STAGE_HEADERS + _STAGE_IN_DOTNET + _stage_in(),
        user_id=(*_USER_HEADERS, *_USER_IN_DOTNET, *_user_in(), "property:user_id"),
        error=("header:NServiceBus.ExceptionInfo.Message", "body:Error.Message", "body:Error"),
        types=("header:NServiceBus.EnclosedMessageTypes", "property:type"),
    ),
    # The property type is `Namespace.Type, Assembly` (`Namespace.Type:Assembly` in old versions); correlation_id is
    # a new id for each message unless the program sets one, and message_id is not set. What a consumer failed on is
    # published to EasyNetQ_Default_Error_Queue inside an envelope: RoutingKey, Exchange, Queue, Exception, DateTime,
    # BasicProperties, and in Message the body as a string.
    # https://github.com/EasyNetQ/EasyNetQ (DefaultMessageSerializationStrategy, SystemMessages.Error)
    "easynetq": Preset(
        message_id=(
            "property:message_id",
            "body:BasicProperties.MessageId",
            "body:BasicProperties.CorrelationId",
            "property:correlation_id",
        ),
        order_id=(
            *_ORDER_HEADERS,
            *_ORDER_IN_DOTNET,
            *_order_in(),
            "body:from_json(Message).[OrderId, orderId, order_id, Order.Id][?@] | [0]",
        ),
        stage=_STAGE_HEADERS + _STAGE_IN_DOTNET + _stage_in(),
        user_id=(
            *_USER_HEADERS,
            *_USER_IN_DOTNET,
            *_user_in(),
            "body:from_json(Message).[UserId, userId, user_id, User.Id][?@] | [0]",
            "property:user_id",
        ),
        error=("body:Exception", "body:Error.Message", "body:Error"),
        types=("property:type",),
    ),
    # Protocol 2: headers id (of the task), task (its name), root_id, parent_id; property correlation_id repeats id;
    # the body is [args, kwargs, embed]. Protocol 1 has {"id", "task", "args", "kwargs"} as its body. A result is
    # {"task_id", "status", "result", "traceback"}, and the result of a failure {"exc_type", "exc_message",
    # "exc_module"}. The status of a result is that of the task and not of an order.
    # https://docs.celeryq.dev/en/latest/internals/protocol.html
    "celery": Preset(
        message_id=("header:id", "property:message_id", "property:correlation_id"),
        order_id=_ORDER_HEADERS
        + _order_in("[1].")
        + _order_in("[0][0].")
        + _order_in("kwargs.")
        + _order_in("result."),
        stage=_STAGE_HEADERS + _stage_in("[1].") + _stage_in("[0][0].") + _stage_in("kwargs."),
        user_id=(*_USER_HEADERS, *_user_in("[1]."), *_user_in("[0][0]."), *_user_in("kwargs."), "property:user_id"),
        error=("body:result.exc_message[0]", "body:result.exc_message", "body:result.exc_type"),
        types=("header:task", "body:task"),
    ),
}
