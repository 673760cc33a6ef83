/* Drains a queue with librabbitmq and does nothing with what comes: the least that consuming can cost.
 *
 *     drain HOST PORT USER PASSWORD VHOST QUEUE COUNT PREFETCH ACK_EVERY
 *
 * Says "first" on stdout when the first message begins, "done" when COUNT of them are complete and acknowledged, and
 * ends when its stdin does. COUNT 0: never done.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if __has_include(<rabbitmq-c/amqp.h>) /* from 0.12 on */
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

static void fail(const char *what) {
    fprintf(stderr, "drain: %s failed\n", what);
    exit(1);
}

static void check(amqp_connection_state_t connection, const char *what) {
    if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static void say(const char *word) {
    puts(word);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 10) fail("reading the arguments");
    const uint64_t count = strtoull(argv[7], NULL, 10);
    const uint64_t ack_every = strtoull(argv[9], NULL, 10);

    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (!socket || amqp_socket_open(socket, argv[1], atoi(argv[2]))) fail("connecting");
    if (amqp_login(connection, argv[5], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[3], argv[4]).reply_type !=
        AMQP_RESPONSE_NORMAL)
        fail("logging in");
    amqp_channel_open(connection, 1);
    check(connection, "opening a channel");
    amqp_basic_qos(connection, 1, 0, (uint16_t)atoi(argv[8]), 0);
    check(connection, "setting the prefetch");
    amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[6]), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(connection, "consuming");

    uint64_t messages = 0, tag = 0, missing = 0;
    amqp_frame_t frame;
    while (count == 0 || messages < count) {
        amqp_maybe_release_buffers(connection);
        if (amqp_simple_wait_frame(connection, &frame) != AMQP_STATUS_OK) fail("reading");
        if (frame.frame_type == AMQP_FRAME_METHOD) {
            if (frame.payload.method.id != AMQP_BASIC_DELIVER_METHOD) fail("consuming on");
            tag = ((amqp_basic_deliver_t *)frame.payload.method.decoded)->delivery_tag;
            if (messages == 0) say("first");
            continue;
        } else if (frame.frame_type == AMQP_FRAME_HEADER) {
            missing = frame.payload.properties.body_size;
        } else if (frame.frame_type == AMQP_FRAME_BODY) {
            missing -= frame.payload.body_fragment.len;
        } else {
            continue;
        }
        if (missing == 0) {
            messages++;
            if ((messages % ack_every == 0 || messages == count) && amqp_basic_ack(connection, 1, tag, 1))
                fail("acknowledging");
        }
    }
    say("done");
    while (getchar() != EOF) {
    }
    return 0;
}
