#!/bin/sh
# One shell for the host on a virtio port: a line "ID BASE64" is a command; its output follows as it comes, and then a line
# "\001END ID CODE". One command at a time. It must never mix two ports: each has its own script file.
exec 3<>"$1"
script=/run/command.${1##*/}
printf '\001END ready 0\n' >&3
while read -r id words <&3; do
  echo "$words" | base64 -d > "$script"
  sh "$script" </dev/null >&3 2>&1 3>&-
  code=$?
  rm -f "$script"
  printf '\001END %s %s\n' "$id" "$code" >&3
done
