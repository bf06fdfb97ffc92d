// Publishes events that streamhand workers read, by Jedis: now, once, later, and to a partitioned topic.
//
// Copy what you need. What an entry must have, and why, is in docs/wire.md; conformance/ has what to try this by.
//
//   java -cp jedis.jar:… Jedis.java redis://127.0.0.1:6379 orders     publishes four events to a stream or a topic

import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.params.XAddParams;

public class Jedis {
  // Scripts as streamhand loads them; ship them beside your program.
  private static final Path SCRIPTS = Path.of("conformance", "scripts");
  private static final byte[] IDENTITY = HexFormat.of().parseHex("0811d2b09371559caed3d939036012fc");

  private final JedisPooled redis;
  private final String source;
  private final Map<String, long[]> layouts = new HashMap<>();

  Jedis(JedisPooled redis, String source) {
    this.redis = redis;
    this.source = source;
  }

  /** Publishes an event. Again with the same id it is a copy of it. */
  void publish(String stream, String type, String id, String subject, String json) {
    redis.xadd(streamOf(stream, subject, id), fields(type, id, subject, json), XAddParams.xAddParams());
  }

  /** Publishes an event unless one of this id, type and source was within the window. Whether it is new. */
  boolean publishOnce(String stream, String type, String id, String subject, String json, Duration window)
      throws IOException {
    stream = streamOf(stream, subject, id);
    String mark = tagged(stream) + ":published:" + which(source, id, type);
    // A hash of the bytes: nobody else publishes these events. docs/wire.md has the one that all languages share.
    String hash = HexFormat.of().formatHex(sha1(utf8(json))).substring(0, 16);
    List<String> args = new ArrayList<>(List.of(String.valueOf(window.toMillis()), hash, "0"));
    fields(type, id, subject, json).forEach((name, value) -> args.addAll(List.of(name, value)));
    List<?> answer = (List<?>) run("publish_once", List.of(stream, mark, tagged(stream) + ":never"), args);
    if (answer.get(2).equals(1L)) {
      throw new IllegalStateException("the event " + id + " was published before with other data");
    }
    return answer.get(1).equals(1L);
  }

  /** Publishes an event so much later, by the clock of Redis. It is cancelled by its id. */
  void publishLater(String stream, String type, String id, String subject, String json, Duration delay)
      throws IOException {
    stream = streamOf(stream, subject, id);
    String tag = tagged(stream);
    List<String> keys = List.of(stream, tag + ":scheduled", tag + ":scheduled:events", tag + ":never");
    String millis = String.valueOf(delay.toMillis());
    List<String> args = new ArrayList<>(List.of(id, which(source, id, type), "", millis, "0"));
    fields(type, id, subject, json).forEach((name, value) -> args.addAll(List.of(name, value)));
    run("schedule", keys, args);
  }

  private Object run(String name, List<String> keys, List<String> args) throws IOException {
    String text = Files.readString(SCRIPTS.resolve(name + ".lua"));
    return redis.eval(text, keys, args);
  }

  private Map<String, String> fields(String type, String id, String subject, String json) {
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("type", type);
    fields.put("id", id);
    fields.put("source", source);
    fields.put("time", Instant.now().truncatedTo(ChronoUnit.MILLIS).toString());
    if (!subject.isEmpty()) {
      fields.put("subject", subject);
    }
    fields.put("data", json);
    return fields;
  }

  /** The stream itself, or that of the event's partition. */
  private String streamOf(String stream, String subject, String id) {
    long[] layout = layouts.computeIfAbsent(stream, this::layoutOf);
    if (layout[0] == 0) {
      return stream;
    }
    String number = Long.toUnsignedString(Long.remainderUnsigned(fnv1a64(subject.isEmpty() ? id : subject), layout[1]));
    return "{" + stream + ":" + (layout[0] == 1 ? "" : layout[0] + ".") + number + "}";
  }

  private long[] layoutOf(String stream) {
    long[] last = {0, 0};
    redis.hgetAll("{" + stream + "}:partitions").forEach((generation, many) -> {
      // Fields that are no numbers say other things.
      if (generation.matches("\\d+") && Long.parseLong(generation) > last[0]) {
        last[0] = Long.parseLong(generation);
        last[1] = Long.parseLong(many);
      }
    });
    return last;
  }

  static long fnv1a64(String text) {
    long hash = 0xcbf29ce484222325L;
    for (byte part : utf8(text)) {
      hash = (hash ^ (part & 0xff)) * 0x100000001b3L;
    }
    return hash;
  }

  private static String tagged(String stream) {
    return stream.contains("{") ? stream : "{" + stream + "}";
  }

  /** Which event it is, as streamhand has it: a UUIDv5 without hyphens. */
  static String which(String source, String id, String type) {
    ByteBuffer name = ByteBuffer.allocate(27 + IDENTITY.length + utf8(source + id + type).length).put(IDENTITY);
    for (String part : List.of(source, id, type)) {
      name.put((byte) 's').putLong(utf8(part).length).put(utf8(part));
    }
    byte[] hash = sha1(name.array());
    hash[6] = (byte) (hash[6] & 0x0f | 0x50);
    hash[8] = (byte) (hash[8] & 0x3f | 0x80);
    return HexFormat.of().formatHex(hash, 0, 16);
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static byte[] sha1(byte[] bytes) {
    try {
      return MessageDigest.getInstance("SHA-1").digest(bytes);
    } catch (NoSuchAlgorithmException impossible) {
      throw new AssertionError(impossible);
    }
  }

  public static void main(String[] args) throws IOException {
    // Of conformance/partition.json and conformance/identity.json.
    assert fnv1a64("order:o-1") == 0x70fd0d55dbe6008aL;
    assert which("shop", "7", "order.created").equals("cc340d59c88d5589b619c3781381a82e");
    try (JedisPooled redis = new JedisPooled(URI.create(args[0]))) {
      Jedis publisher = new Jedis(redis, "shop");
      String type = "order.created";
      publisher.publish(args[1], type, "o-1-created", "order:o-1", "{\"order_id\":\"o-1\",\"amount\":3}");
      for (int time = 0; time < 2; time++) {
        String order = "{\"order_id\":\"o-2\",\"amount\":3}";
        publisher.publishOnce(args[1], type, "o-2-created", "order:o-2", order, Duration.ofDays(1));
      }
      String later = "{\"order_id\":\"o-3\",\"amount\":3}";
      publisher.publishLater(args[1], type, "o-3-created", "order:o-3", later, Duration.ofMillis(500));
      String id = UUID.randomUUID().toString();
      publisher.publish(args[1], type, id, "", "{\"order_id\":\"o-4: créée\",\"amount\":3}");
    }
  }
}
