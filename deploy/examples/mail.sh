#!/bin/sh
# Handles one event and ends. The event is on standard input, and what it is stands in CE_TYPE, CE_ID and the like.
# In config.toml:
#
#     [targets.mail]
#     command = ["sh", "mail.sh"]
#     mode = "once"
#
#     [handlers."mail.wanted"]
#     target = "mail"
#
# Exit code 0: done. 65: never again, to the dead letters. 75, or any other: tried again. What is printed goes to the
# worker's log, what is written to descriptor 4 is the answer.
set -eu

if [ -z "${CE_SUBJECT-}" ]; then
    echo "nobody to write to" >&2
    exit 65
fi

# In earnest: sendmail, curl, or whatever takes it.
cat >>"${MAILBOX:-/dev/null}" || exit 75
echo "sent attempt $STREAMHAND_ATTEMPT to $CE_SUBJECT"

# Published together with the acknowledgement, once.
printf '{"emit": [{"stream": "mails", "type": "mail.sent", "data": {"wanted": "%s"}}]}' "$CE_ID" >&4
