/**
 * The SQL function `saq_enqueue(queue, function, kwargs, options)`, with which triggers and other languages enqueue
 * jobs. It writes the same row as `enqueue` and follows the same rules for keys (see `insertOrReplace`
 * in sql/enqueue.ts). It runs in the caller's transaction and with the caller's rights. It does not know the names and
 * the defaults of tasks.
 */
import pg from "pg";
import { notifyAheadSeconds } from "../../broker.js";
import { defaultMaxBytes } from "../../core/byte-size.js";
import { type Names, quote, saqTables } from "./names.js";

/** Must be raised with every change of the function's text; start-up replaces an older version. */
export const enqueueVersion = 3;
export const enqueueMarker = "-- saq_enqueue ";

/** The name of the function. Each set of tables has its own: the one of `mail_jobs` is `mail_jobs_enqueue`. */
export const enqueueName = ({ tables }: Names): string =>
  tables.jobs === saqTables.jobs ? "saq_enqueue" : `${tables.jobs}_enqueue`;

/**
 * Returns the statement that creates the function. For safety, its search path has no schema in which others can create
 * objects, and it builds no SQL from its arguments.
 */
export const enqueueFunction = (names: Names): string =>
  `create or replace function ${quote(names.schema)}.${quote(enqueueName(names))}(queue text, function text, kwargs jsonb default null, options jsonb default '{}')
  returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as ${pg.escapeLiteral(body(names))}`;

const body = (names: Names) => `${enqueueMarker}${enqueueVersion}
#variable_conflict use_column
declare
  most constant numeric := 9007199254740991;
  now_ms constant bigint := floor(extract(epoch from clock_timestamp()) * 1000);
  now_s constant bigint := floor(extract(epoch from now()));
  chosen text;
  due bigint := 0;
  place smallint := 0;
  its_group text;
  document jsonb;
  more jsonb := '{}';
  name text;
  value jsonb;
  number numeric;
  words text;
  allowed text;
  stored text;
begin
  if $1 is null or octet_length($1) not between 1 and 59 then
    raise exception using errcode = '22023',
      message = format('saq_enqueue: queue must be a text of 1 to 59 bytes, got %s', coalesce(quote_literal($1), 'null'));
  end if;
  if $2 is null or $2 = '' then
    raise exception using errcode = '22023',
      message = format('saq_enqueue: function must be the name of a task, got %s', coalesce(quote_literal($2), 'null'));
  end if;
  if jsonb_typeof($3) not in ('object', 'null') then
    raise exception using errcode = '22023', message = format(
      'saq_enqueue: kwargs must be an object of named values or null, got %s; wrap it: {"value": ...}', left($3::text, 200));
  end if;
  if octet_length($3::text) > ${defaultMaxBytes} then
    raise exception using errcode = '22023', message = format('saq_enqueue: kwargs has %s bytes as JSON, at most '
      '${defaultMaxBytes} can be stored; store the data elsewhere and enqueue a reference to it', octet_length($3::text));
  end if;
  if jsonb_typeof($4) is distinct from 'object' then
    raise exception using errcode = '22023',
      message = format('saq_enqueue: options must be an object, got %s', coalesce(left($4::text, 200), 'null'));
  end if;
  if $4 ? 'delay' and $4 ? 'scheduled' then
    raise exception using errcode = '22023',
      message = 'saq_enqueue: options has both delay and scheduled, one of them is allowed';
  end if;

  for name, value in select e.key, e.value from jsonb_each($4) e loop
    number := case when jsonb_typeof(value) = 'number' then trim_scale((value #>> '{}')::numeric) end;
    words := case when jsonb_typeof(value) = 'string' then value #>> '{}' end;
    allowed := null;
    if name = 'key' then
      if words is null or octet_length(words) not between 1 and 2000 then allowed := 'a text of 1 to 2000 bytes'; end if;
      chosen := words;
    elsif name = 'group_key' then
      if value <> 'null' and (words is null or octet_length(words) > 2000) then
        allowed := 'a text of at most 2000 bytes, or null';
      end if;
      its_group := words;
    elsif name = 'meta' then
      if jsonb_typeof(value) not in ('object', 'null') then allowed := 'an object'; end if;
      if octet_length(value::text) > ${defaultMaxBytes} then
        allowed := 'an object of at most ${defaultMaxBytes} bytes as JSON';
      end if;
      if value not in ('null', '{}') then more := more || jsonb_build_object(name, value); end if;
    elsif name = 'timeout' then
      if value <> 'null' and (number is null or number not between 0 and most) then
        allowed := 'null or seconds >= 0 (0 and null: no limit)';
      end if;
      if number is distinct from 10 then more := more || jsonb_build_object(name, number); end if;
    elsif name in ('heartbeat', 'retry_delay') then
      if number is null or number not between 0 and most then allowed := 'seconds >= 0'; end if;
      if number <> 0 then more := more || jsonb_build_object(name, number); end if;
    elsif name = 'retries' then
      if number is null or number not between 0 and most or scale(number) > 0 then
        allowed := 'a whole number >= 0 of attempts in all';
      end if;
      if number <> 1 then more := more || jsonb_build_object(name, number); end if;
    elsif name = 'ttl' then
      if number is null or number not between -most and most or scale(number) > 0 then
        allowed := 'whole seconds (0: keep for ever, -1: delete at once)';
      end if;
      if number <> 600 then more := more || jsonb_build_object(name, number); end if;
    elsif name = 'retry_backoff' then
      if jsonb_typeof(value) <> 'boolean' and (number is null or number not between 0 and most) then
        allowed := 'true, false or a cap in seconds';
      end if;
      if value <> 'false' and number is distinct from 0 then
        more := more || jsonb_build_object(name, coalesce(to_jsonb(number), value));
      end if;
    elsif name = 'priority' then
      if number is null or number not between -32768 and 32767 or scale(number) > 0 then
        allowed := 'a whole number of -32768 to 32767';
      else
        place := number;
      end if;
    elsif name = 'scheduled' then
      if number is null or number not between 0 and 100000000000 then
        allowed := 'epoch seconds' || case when number > 100000000000 then ' (milliseconds? divide by 1000)' else '' end;
      else
        due := ceil(number);
      end if;
    elsif name = 'delay' then
      if number is null or number < 0 or now_ms / 1000.0 + number > 100000000000 then
        allowed := 'seconds >= 0 from now';
      elsif number > 0 then
        due := ceil(now_ms / 1000.0 + number);
      end if;
    else
      raise exception using errcode = '22023', message = format('saq_enqueue: there is no option %s (known: %s)',
        to_json(name), 'key, timeout, heartbeat, retries, ttl, retry_delay, retry_backoff, scheduled, delay, priority, group_key, meta');
    end if;
    if allowed is not null then
      raise exception using errcode = '22023',
        message = format('saq_enqueue: option %s must be %s, got %s', name, allowed, left(value::text, 200));
    end if;
  end loop;

  -- Ascending in time, as version 7 of UUIDs is.
  chosen := coalesce(chosen, encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send(now_ms) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid::text);
  document := jsonb_build_object('function', $2, 'queue', $1, 'key', chosen, 'queued', now_ms, 'status', 'queued') || more;
  if jsonb_typeof($3) = 'object' then document := document || jsonb_build_object('kwargs', $3); end if;
  if due <> 0 then document := document || jsonb_build_object('scheduled', due); end if;
  if place <> 0 then document := document || jsonb_build_object('priority', place); end if;
  if its_group is not null then document := document || jsonb_build_object('group_key', its_group); end if;

  insert into ${names.jobs} as held (key, job, queue, status, priority, group_key, scheduled)
  select chosen, convert_to(document::text, 'UTF8'), $1, 'queued', place, its_group, g.due
  from (select case when due = 0 then now_s else due end as due) g
  where not exists (select 1 from ${names.jobs} b where b.key = chosen
    and (b.queue <> $1 or b.status not in ('complete', 'failed', 'aborted') or b.scheduled >= g.due))
  on conflict (key) do update set job = excluded.job, status = 'queued', priority = excluded.priority,
    group_key = excluded.group_key, scheduled = excluded.scheduled, lock_key = excluded.lock_key, expire_at = null
  where held.queue = excluded.queue and held.status in ('complete', 'failed', 'aborted')
    and held.scheduled < excluded.scheduled
  returning held.key into stored;
  if stored is not null and due <= now_s + ${notifyAheadSeconds} then perform pg_notify('saq:' || $1, 'saq:enqueue'); end if;
  return stored;
end`;
