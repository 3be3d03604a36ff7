import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.eclipse.paho.client.mqttv3.MqttClient;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Eclipse Paho for Java, MQTT 3.1.1: Version3 URL, with tcp, ssl, ws or wss; the authority of a TLS listener is in javax.net.ssl.trustStore */
public final class Version3 {
    private static String url;

    private static final class Client {
        final MqttClient paho;
        final LinkedBlockingQueue<MqttMessage> messages = new LinkedBlockingQueue<>();

        Client(String id, boolean clean, String will) throws Exception {
            paho = new MqttClient(url, id, new MemoryPersistence());
            MqttConnectOptions options = new MqttConnectOptions();
            options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
            options.setCleanSession(clean);
            if (will != null) {
                options.setWill(will, "gone".getBytes(), 1, false);
            }
            paho.setCallback(new org.eclipse.paho.client.mqttv3.MqttCallback() {
                @Override
                public void connectionLost(Throwable cause) {}

                @Override
                public void messageArrived(String topic, MqttMessage message) {
                    messages.add(message);
                }

                @Override
                public void deliveryComplete(org.eclipse.paho.client.mqttv3.IMqttDeliveryToken token) {}
            });
            paho.connect(options);
        }

        List<String> take(int count) throws Exception {
            List<String> texts = new ArrayList<>();
            while (texts.size() < count) {
                MqttMessage message = messages.poll(10, TimeUnit.SECONDS);
                Tap.check(message != null, texts);
                texts.add(new String(message.getPayload()));
            }
            return texts;
        }

        void leave() throws Exception {
            paho.disconnect();
            paho.close();
        }
    }

    public static void main(String[] arguments) {
        url = arguments[0];
        Tap tap = new Tap();
        for (int qos = 0; qos <= 2; qos++) {
            final int q = qos;
            tap.test("3.1.1: QoS " + q + ", in order", () -> {
                Client client = new Client("java3-" + q, true, null);
                client.paho.subscribe("java3/" + q, q);
                List<String> sent = new ArrayList<>();
                for (int n = 0; n < 50; n++) {
                    sent.add("" + n);
                    client.paho.publish("java3/" + q, ("" + n).getBytes(), q, false);
                }
                List<String> got = client.take(50);
                Tap.check(got.equals(sent), got);
                client.leave();
            });
        }
        tap.test("3.1.1: retained, cleared", () -> {
            Client client = new Client("java3-r", true, null);
            client.paho.publish("java3/kept", "x".getBytes(), 1, true);
            client.paho.subscribe("java3/#", 1);
            MqttMessage kept = client.messages.poll(10, TimeUnit.SECONDS);
            Tap.check(kept != null && kept.isRetained(), kept);
            client.paho.publish("java3/kept", new byte[0], 1, true);
            Tap.check(client.take(1).get(0).isEmpty(), "");
            client.leave();
        });
        tap.test("3.1.1: a session waits", () -> {
            Client client = new Client("java3-s", false, null);
            client.paho.subscribe("java3/session", 2);
            client.leave();
            Client other = new Client("java3-o", true, null);
            for (int n = 0; n < 20; n++) {
                other.paho.publish("java3/session", ("" + n).getBytes(), 2, false);
            }
            client = new Client("java3-s", false, null);
            List<String> got = client.take(20);
            Tap.check(got.get(0).equals("0") && got.get(19).equals("19"), got);
            client.leave();
            new Client("java3-s", true, null).leave();
            other.leave();
        });
        tap.test("3.1.1: a will", () -> {
            Client watcher = new Client("java3-w", true, null);
            watcher.paho.subscribe("java3/will", 1);
            Client doomed = new Client("java3-d", true, "java3/will");
            doomed.paho.disconnectForcibly(0, 1, false);
            Tap.check(watcher.take(1).get(0).equals("gone"), "");
            watcher.leave();
        });
        tap.exit();
    }
}
